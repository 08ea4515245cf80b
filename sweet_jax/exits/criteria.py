"""Exit criteria: causal maps of calibrated logits to scores.

A cascade leaves at the first exit whose score reaches the threshold. The paper uses
`confidence` (section 3); `entropy` is DeeBERT's and FastBERT's, normalised and turned
round so that more is surer; `patience` is PABEE's, counted in exits that agree: its
threshold t is PABEE's patience t - 1, which counts exits that agree with the one before
(there 0 stands for all layers, here `FULL`); `lte` is what exits have learned to say of
themselves (`exits.learned`). Scores and thresholds are float32, and a score lies
in its criterion's range exactly: the lowest threshold of any criterion leaves at exit
0, whatever softmax rounds to.

`register_criterion` adds one from outside (docs/extending.md). The evaluator scores all
exits of a bank at once; the engine scores exit i of the rows that have come so far,
with zeros behind it. One function does both because it is causal and takes each row
alone, which is why both are checked when it is registered.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from sweet_jax.arrays import Array
from sweet_jax.exits.criterion import Criterion, RangeFn, ScoresFn
from sweet_jax.exits.criterion_checks import check_criterion
from sweet_jax.settings.fields import LOGIT_CRITERIA
from sweet_jax.settings.registries import CRITERIA

# The threshold that no score reaches: every example runs every exit.
FULL = float("inf")


def _confidence(logits_NEC: Array) -> Array:
    return jax.nn.softmax(logits_NEC).max(axis=-1)


def _entropy(logits_NEC: Array) -> Array:
    # entr(0) is 0 where a probability has underflowed; p * log p would be NaN.
    entropy_NE = jax.scipy.special.entr(jax.nn.softmax(logits_NEC)).sum(axis=-1)
    return 1.0 - entropy_NE / math.log(logits_NEC.shape[-1])


def _margin(logits_NEC: Array) -> Array:
    probs_NEC = jax.nn.softmax(logits_NEC)
    # The second largest is the largest of the others; a tie leaves the other one, and
    # so 0. On CPU this is faster than top_k, which sorts.
    answers_NE1 = jnp.argmax(probs_NEC, axis=-1, keepdims=True)
    classes_11C = jnp.arange(probs_NEC.shape[-1])[None, None]
    others_NEC = jnp.where(classes_11C == answers_NE1, 0.0, probs_NEC)
    return probs_NEC.max(axis=-1) - others_NEC.max(axis=-1)


def _patience(logits_NEC: Array) -> Array:
    """Returns how many exits in a row, up to this one, have given its answer."""
    predictions_NE = jnp.argmax(logits_NEC, axis=-1)
    exits_E = jnp.arange(predictions_NE.shape[1])
    # A run starts at exit 0 and wherever the prediction differs from the one before.
    differs_NE = jnp.diff(predictions_NE, axis=1, prepend=predictions_NE[:, :1]) != 0
    starts_NE = jnp.where(differs_NE, exits_E[None, :], 0)
    return exits_E[None, :] - jax.lax.cummax(starts_NE, axis=1) + 1


def _lte(logits_NEC: Array, lte_NE: Array) -> Array:
    return lte_NE


for _name, _row in {
    "confidence": Criterion(_confidence, lambda classes, exits: (1 / classes, 1.0)),
    "entropy": Criterion(_entropy, lambda classes, exits: (0.0, 1.0)),
    "margin": Criterion(_margin, lambda classes, exits: (0.0, 1.0)),
    "patience": Criterion(
        _patience, lambda classes, exits: (1.0, float(exits)), counts=True
    ),
    "lte": Criterion(_lte, lambda classes, exits: (0.0, 1.0), reads_lte=True),
}.items():
    CRITERIA.register(_name, _row)
CRITERIA.check = check_criterion


@overload
def register_criterion(
    name: str,
    scores_fn: ScoresFn,
    *,
    score_range: tuple[float, float] | RangeFn = ...,
    counts: bool = ...,
    reads_lte: bool = ...,
    replace: bool = ...,
) -> ScoresFn: ...
@overload
def register_criterion(
    name: str,
    scores_fn: None = None,
    *,
    score_range: tuple[float, float] | RangeFn = ...,
    counts: bool = ...,
    reads_lte: bool = ...,
    replace: bool = ...,
) -> Callable[[ScoresFn], ScoresFn]: ...
def register_criterion(
    name: Any,
    scores_fn: Any = None,
    *,
    score_range: tuple[float, float] | RangeFn = (0.0, 1.0),
    counts: bool = False,
    reads_lte: bool = False,
    replace: bool = False,
) -> Any:
    """Adds an exit criterion, or without `scores_fn` returns a decorator that does.

    Args:
        name: what `evaluate.criteria` and `predict` call it.
        scores_fn: see `Criterion`.
        score_range: lowest and highest score, or a function of (num_classes, num_exits)
            that returns them.
        counts: see `Criterion`.
        reads_lte: see `Criterion`.
        replace: take the name over from an earlier registration.

    Raises:
        ValueError: the name is taken, or the function is no criterion
            (`check_criterion`).
    """
    if scores_fn is None:
        CRITERIA.check_new(name, replace)
        options = {"counts": counts, "reads_lte": reads_lte, "replace": replace}
        return lambda fn: register_criterion(
            name, fn, score_range=score_range, **options
        )
    range_fn = score_range if callable(score_range) else lambda *_: score_range
    row = Criterion(scores_fn, range_fn, counts, reads_lte)
    CRITERIA.register(name, row, replace=replace)
    return scores_fn


def find_criterion(name: str) -> Criterion:
    """Returns the criterion of a name.

    Raises:
        ValueError: the name is unknown.
    """
    return CRITERIA.lookup(name)


def compute_scores(
    criterion: str,
    logits_NEC: Float[Array, "N E C"],
    lte_NE: Float[Array, "N E"] | None = None,
) -> Float32[jax.Array, "N E"]:
    """Returns the score of every exit on every example; more means surer.

    Args:
        criterion: a registered name.
        logits_NEC: calibrated logits, at least two classes.
        lte_NE: learning-to-exit scores, scaled by `learned.scale_lte`, for criteria
            that read them.

    Returns:
        float32 scores within `threshold_range`. Exit i's depend on exits up to i only.

    Raises:
        ValueError: the criterion is unknown, or there are fewer than two classes, or
            it reads learning-to-exit scores and there are none.
    """
    check_lte(criterion, lte_NE is not None)
    _, num_exits, num_classes = logits_NEC.shape
    threshold_range(criterion, num_classes, num_exits)  # It checks their numbers.
    row = find_criterion(criterion)
    read = (logits_NEC, lte_NE) if row.reads_lte else (logits_NEC,)
    return _compute_scores(row, *read)


# By its functions, not by its name, which may be given to others.
@functools.partial(jax.jit, static_argnums=0)
def _compute_scores(row: Criterion, logits_NEC: Array, *lte_NE: Array) -> Array:
    return row.score(logits_NEC, *lte_NE)


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
    low, high = find_criterion(criterion).range_fn(num_classes, num_exits)
    return float(low), float(high)


def make_thresholds(
    criterion: str, num_thresholds: int, num_classes: int, num_exits: int
) -> Float32[np.ndarray, " T"]:
    """Returns the grid of thresholds, rising from exit 0 for all to nearly none.

    `num_thresholds` equal steps over the criterion's range, as in the released code; a
    criterion that counts (patience) has one threshold per count instead.
    """
    low, high = threshold_range(criterion, num_classes, num_exits)
    if find_criterion(criterion).counts:
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
    """Raises ValueError if the criterion reads scores that a model does not give.

    Or if it is unknown.
    """
    if find_criterion(criterion).reads_lte and not has_lte:
        raise ValueError(
            f"criterion={criterion} reads learning-to-exit scores, and this model has"
            " no heads for them: train with exits.learn_to_exit=True, or use"
            f" {', '.join(LOGIT_CRITERIA)}"
        )
