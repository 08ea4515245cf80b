"""Sequences of thresholds from the full model down to the cheapest cascade.

They are made of calibration part 0 alone, so that part 1 can test them in their order
(`risk_control`). Each step's thresholds are at most those of the step before it: on any
rows, each input leaves no later and the cost never rises along a sequence.

One threshold holds for all exits, or each exit but the last, which always answers, has
its own. `FULL` precedes every sequence; it never errs by definition and needs no test.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from sweet_jax.exits.criteria import FULL

# Testing in order costs no certainty per step, so this bounds work alone.
_MAX_STEPS = 1500
# Steps that are replayed in memory together.
_STEPS_AT_ONCE = 64
# Errors that a step is charged beside those it was seen to make: a row or two without
# one are no proof that an exit makes none. Of steps without an error the one that saves
# most comes first.
_PRIOR_ERRORS = 0.5


def find_exits(
    scores_NE: Float[np.ndarray, "N E"], path_TK: Float[np.ndarray, "T K"]
) -> Int[np.ndarray, "T N"]:
    """Returns the exit at which each example leaves, at each step.

    With one threshold this is `cascade.choose_exits`, without a program to compile.

    Args:
        scores_NE: scores of a criterion, compared in float32.
        path_TK: per step one threshold, or one per exit but the last.
    """
    early_NE = np.asarray(scores_NE[:, :-1], np.float32)
    reached_TNE = early_NE[None] >= np.asarray(path_TK, np.float32)[:, None, :]
    # The last exit always answers, whatever its score.
    always_TN1 = np.ones((len(path_TK), len(scores_NE), 1), bool)
    return np.argmax(np.concatenate([reached_TNE, always_TN1], axis=2), axis=2)


def count_errors(
    scores_NE: Float[np.ndarray, "N E"],
    errors_NE: Bool[np.ndarray, "N E"],
    path_TK: Float[np.ndarray, "T K"],
) -> Int[np.ndarray, " T"]:
    """Returns at each step of the path how many rows err at the exit they leave at."""
    rows_1N = np.arange(len(scores_NE))[None]
    return np.concatenate(
        [
            errors_NE[rows_1N, find_exits(scores_NE, steps_TK)].sum(axis=1)
            for steps_TK in np.split(
                path_TK, range(_STEPS_AT_ONCE, len(path_TK), _STEPS_AT_ONCE)
            )
        ]
    )


def make_global_path(
    scores_NE: Float[np.ndarray, "N E"], lowest_threshold: float
) -> Float32[np.ndarray, "T 1"]:
    """Returns falling thresholds: those that change the cascade on these rows.

    Scores crowd where a model is sure; a grid with equal steps has few points there,
    where the safe thresholds are.

    Args:
        scores_NE: of a criterion, on part 0.
        lowest_threshold: of the criterion; the last step.
    """
    # An example passes exit i exactly when the threshold exceeds its best score so far.
    best_NE = np.maximum.accumulate(np.asarray(scores_NE, np.float32)[:, :-1], axis=1)
    values_T = np.unique(np.append(np.float32(lowest_threshold), best_NE))[::-1]
    kept = np.linspace(0, len(values_T) - 1, min(len(values_T), _MAX_STEPS))
    return values_T[np.round(kept).astype(int), None]


def make_path_per_exit(
    scores_NE: Float[np.ndarray, "N E"],
    errors_NE: Bool[np.ndarray, "N E"],
    costs_E: Float[np.ndarray, " E"],
    lowest_threshold: float,
) -> Float32[np.ndarray, "T E-1"]:
    """Returns vectors of thresholds, each one exit's threshold lower than the last.

    Greedy: of all exits the one is lowered that adds the fewest errors per cost saved
    on these rows, just far enough to let one more row leave there (or a few, where rows
    and exits are many).

    Args:
        scores_NE: of a criterion, on part 0.
        errors_NE: where it is an error that an exit answers.
        costs_E: of leaving at each exit; rising.
        lowest_threshold: of the criterion; the last step lets everything leave at
            exit 0.
    """
    scores_NE = np.asarray(scores_NE, np.float32)
    num_rows, num_exits = scores_NE.shape
    step_rows = math.ceil(num_rows * (num_exits - 1) / _MAX_STEPS)
    thresholds = np.full(num_exits - 1, FULL, np.float32)
    exits_N = np.full(num_rows, num_exits - 1)
    steps = []

    def propose(i: int) -> tuple[float, np.float32, np.ndarray] | None:
        """Returns (errors added per cost saved, threshold, rows that leave at i)."""
        deeper_N = exits_N > i
        waiting = scores_NE[deeper_N, i]
        if not len(waiting):
            return None
        place = max(len(waiting) - step_rows, 0)
        threshold = np.float32(np.partition(waiting, place)[place])
        leaving = np.flatnonzero(deeper_N & (scores_NE[:, i] >= threshold))
        before = exits_N[leaving]
        saved = (costs_E[before] - costs_E[i]).sum()
        added = errors_NE[leaving, i].sum() - errors_NE[leaving, before].sum()
        return (added + _PRIOR_ERRORS) / saved, threshold, leaving

    while found := [(p, i) for i in range(num_exits - 1) if (p := propose(i))]:
        (_, threshold, leaving), i = min(found, key=lambda pair: pair[0][0])
        thresholds[i] = threshold
        exits_N[leaving] = i
        steps.append(thresholds.copy())
    thresholds[:1] = lowest_threshold
    return np.stack([*steps, thresholds])
