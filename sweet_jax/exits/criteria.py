"""Exit criteria: causal maps of calibrated logits to scores, one row of a table each.

A cascade leaves at the first exit whose score reaches the threshold. The paper uses
`confidence` (section 3); `entropy` is DeeBERT's and FastBERT's, normalised and turned
round so that more is surer; `patience` is PABEE's, counted in exits that agree: its
threshold t is PABEE's patience t - 1, which counts exits that agree with the one before
(there 0 stands for all layers, here `FULL`); `lte` is what exits have learned to say of
themselves (`exits.learned`). Scores and thresholds are float32, and a score lies
in its criterion's range exactly: the lowest threshold of any criterion leaves at exit
0, whatever softmax rounds to.
"""

import difflib
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from sweet_jax.arrays import Array

# The threshold that no score reaches: every example runs every exit.
FULL = float("inf")

ScoresFn: TypeAlias = Callable[[Array, Array | None], Array]


class Criterion(NamedTuple):
    """One row of the table of criteria.

    Attributes:
        scores_fn: maps (calibrated logits_NEC, lte_NE or None) to scores_NE, where the
            score of exit i depends on exits up to i only.
        range_fn: maps (num_classes, num_exits) to the lowest and highest score.
        counts: scores are whole numbers, so the thresholds are all of them.
        reads_lte: it reads learning-to-exit scores, which not every model has.
    """

    scores_fn: ScoresFn
    range_fn: Callable[[int, int], tuple[float, float]]
    counts: bool = False
    reads_lte: bool = False


def _confidence(logits_NEC: Array, lte_NE: Array | None) -> Array:
    return jax.nn.softmax(logits_NEC).max(axis=-1)


def _entropy(logits_NEC: Array, lte_NE: Array | None) -> Array:
    # entr(0) is 0 where a probability has underflowed; p * log p would be NaN.
    entropy_NE = jax.scipy.special.entr(jax.nn.softmax(logits_NEC)).sum(axis=-1)
    return 1.0 - entropy_NE / math.log(logits_NEC.shape[-1])


def _margin(logits_NEC: Array, lte_NE: Array | None) -> Array:
    probs_NEC = jax.nn.softmax(logits_NEC)
    # The second largest is the largest of the others; a tie leaves the other one, and
    # so 0. On CPU this is faster than top_k, which sorts.
    answers_NE1 = jnp.argmax(probs_NEC, axis=-1, keepdims=True)
    classes_11C = jnp.arange(probs_NEC.shape[-1])[None, None]
    others_NEC = jnp.where(classes_11C == answers_NE1, 0.0, probs_NEC)
    return probs_NEC.max(axis=-1) - others_NEC.max(axis=-1)


def _patience(logits_NEC: Array, lte_NE: Array | None) -> Array:
    """Returns how many exits in a row, up to this one, have given its answer."""
    predictions_NE = jnp.argmax(logits_NEC, axis=-1)
    exits_E = jnp.arange(predictions_NE.shape[1])
    # A run starts at exit 0 and wherever the prediction differs from the one before.
    differs_NE = jnp.diff(predictions_NE, axis=1, prepend=predictions_NE[:, :1]) != 0
    starts_NE = jnp.where(differs_NE, exits_E[None, :], 0)
    return exits_E[None, :] - jax.lax.cummax(starts_NE, axis=1) + 1


def _lte(logits_NEC: Array, lte_NE: Array | None) -> Array:
    assert lte_NE is not None, "check_lte comes first"
    return lte_NE


CRITERIA: dict[str, Criterion] = {
    "confidence": Criterion(_confidence, lambda classes, exits: (1 / classes, 1.0)),
    "entropy": Criterion(_entropy, lambda classes, exits: (0.0, 1.0)),
    "margin": Criterion(_margin, lambda classes, exits: (0.0, 1.0)),
    "patience": Criterion(
        _patience, lambda classes, exits: (1.0, float(exits)), counts=True
    ),
    "lte": Criterion(_lte, lambda classes, exits: (0.0, 1.0), reads_lte=True),
}


@functools.partial(jax.jit, static_argnames="criterion")
def compute_scores(
    criterion: str,
    logits_NEC: Float[Array, "N E C"],
    lte_NE: Float[Array, "N E"] | None = None,
) -> Float32[jax.Array, "N E"]:
    """Returns the score of every exit on every example; more means surer.

    Args:
        criterion: a name in `CRITERIA`.
        logits_NEC: calibrated logits, at least two classes.
        lte_NE: learning-to-exit scores, scaled by `learned.scale_lte`, for criteria
            that read them.

    Returns:
        float32 scores within `threshold_range`. Exit i's depend on exits up to i only.

    Raises:
        ValueError: the criterion is unknown, or there are fewer than two classes, or
            it reads learning-to-exit scores and there are none.
    """
    row = _get_criterion(criterion)
    check_lte(criterion, lte_NE is not None)
    _, num_exits, num_classes = logits_NEC.shape
    low, high = threshold_range(criterion, num_classes, num_exits)
    scores_NE = row.scores_fn(logits_NEC.astype(jnp.float32), lte_NE)
    # Softmax rounds: a sum of C equal float32 shares may fall short of 1, so a score
    # could miss its own range by an ulp and the lowest threshold would not be reached.
    return jnp.clip(scores_NE.astype(jnp.float32), low, high)


def threshold_range(
    criterion: str, num_classes: int, num_exits: int
) -> tuple[float, float]:
    """Returns the lowest and the highest score, which are also the useful thresholds.

    Raises:
        ValueError: the criterion is unknown, or there are fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(
            f"num_classes={num_classes}: exit criteria need at least 2 classes to"
            " compare; check the labels of the task"
        )
    return _get_criterion(criterion).range_fn(num_classes, num_exits)


def make_thresholds(
    criterion: str, num_thresholds: int, num_classes: int, num_exits: int
) -> Float32[np.ndarray, " T"]:
    """Returns the grid of thresholds, rising from exit 0 for all to nearly none.

    `num_thresholds` equal steps over the criterion's range, as in the released code; a
    criterion that counts (patience) has one threshold per count instead.
    """
    low, high = threshold_range(criterion, num_classes, num_exits)
    if _get_criterion(criterion).counts:
        return np.arange(low, high + 1, dtype=np.float32)
    return np.linspace(low, high, num_thresholds).astype(np.float32)


def check_threshold(
    criterion: str, threshold: float, num_classes: int, num_exits: int
) -> None:
    """Raises ValueError unless the threshold is in its criterion's range or `FULL`.

    Compared in float32, as scores are: 0.33333333 is 1/3.
    """
    low, high = threshold_range(criterion, num_classes, num_exits)
    # Written so that NaN is refused too.
    if threshold != FULL and not (
        np.float32(low) <= np.float32(threshold) <= np.float32(high)
    ):
        raise ValueError(
            f"threshold={threshold:.7g} is outside the range of criterion={criterion}"
            f" with {num_classes} classes and {num_exits} exits: allowed is {low:.7g}"
            f" to {high:.7g}, or inf to run every exit"
        )


def check_lte(criterion: str, has_lte: bool) -> None:
    """Raises ValueError if the criterion reads scores that a model does not give."""
    if _get_criterion(criterion).reads_lte and not has_lte:
        others = ", ".join(name for name, row in CRITERIA.items() if not row.reads_lte)
        raise ValueError(
            f"criterion={criterion} reads learning-to-exit scores, and this model has"
            f" no heads for them: train with exits.learn_to_exit=True, or use {others}"
        )


def _get_criterion(criterion: str) -> Criterion:
    if criterion not in CRITERIA:
        close = difflib.get_close_matches(criterion, CRITERIA, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"criterion={criterion!r}: allowed are {', '.join(CRITERIA)}{hint}"
        )
    return CRITERIA[criterion]
