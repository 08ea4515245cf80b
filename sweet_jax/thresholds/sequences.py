"""Sequences of thresholds from the full model down to the cheapest cascade.

They are made from calibration part 0 alone, so that part 1 can test them in this order
(`risk_control`). Thresholds never rise from one step to the next: on any rows, inputs
leave no later and the cost does not rise along a sequence.

A step has one threshold for all exits, or one for each exit but the last, which always
answers. Every sequence starts after `FULL`, whose risk is 0 by definition.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from sweet_jax.exits.criteria import FULL

# Limits computing time only: in fixed-sequence testing more steps cost no power.
_MAX_STEPS = 1500
# Number of steps replayed in memory at once.
_STEPS_AT_ONCE = 64
# Added to the observed errors of a step: one or two rows without an error do not prove
# an error rate of 0. Among steps without errors, the one that saves most comes first.
_PRIOR_ERRORS = 0.5


def find_exits(
    scores_NE: Float[np.ndarray, "N E"], path_TK: Float[np.ndarray, "T K"]
) -> Int[np.ndarray, "T N"]:
    """Returns the exit at which each example leaves, at each step.

    With one threshold this equals `cascade.choose_exits`, but compiles nothing.

    Args:
        scores_NE: scores of a criterion, compared in float32.
        path_TK: per step, one threshold or one per exit but the last.
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
    """Returns, for each step, the number of rows with an error at their exit."""
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
    """Returns the descending thresholds that change the cascade on these rows.

    Most scores of a confident model are close together; a grid with equal steps has few
    points among them, where the safe thresholds are.

    Args:
        scores_NE: scores of a criterion on part 0.
        lowest_threshold: the criterion's lowest, used as the last step.
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
    """Returns threshold vectors; each step lowers the threshold of one exit.

    Greedy: each step lowers the threshold that adds the fewest errors per cost saved on
    these rows, just far enough that one more row leaves at that exit (a few more if
    there are many rows and exits).

    Args:
        scores_NE: scores of a criterion on part 0.
        errors_NE: True where the prediction of an exit is an error.
        costs_E: cost of leaving at each exit, ascending.
        lowest_threshold: the criterion's lowest; at the last step every row leaves at
            exit 0.
    """
    scores_NE = np.asarray(scores_NE, np.float32)
    num_rows, num_exits = scores_NE.shape
    step_rows = math.ceil(num_rows * (num_exits - 1) / _MAX_STEPS)
    thresholds = np.full(num_exits - 1, FULL, np.float32)
    exits_N = np.full(num_rows, num_exits - 1)
    steps = []

    def propose(i: int) -> tuple[float, np.float32, np.ndarray] | None:
        """Returns (added errors per saved cost, threshold, rows that leave at i)."""
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
