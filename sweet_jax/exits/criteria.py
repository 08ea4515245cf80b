"""Exit criteria: causal maps of calibrated logits to scores.

A cascade leaves at the first exit whose score reaches the threshold. The paper uses
`confidence` (section 3). `entropy` is that of DeeBERT and FastBERT, normalised and
subtracted from 1, so that higher is more certain. `patience` is PABEE's, but counts
consecutive exits with equal predictions: threshold t is PABEE's patience t - 1, which
counts exits that agree with the previous one (0 means all layers there, `FULL` here).
`lte` is the learning-to-exit score (`exits.learned`). Scores and thresholds are
float32, and scores are clipped to the criterion's range: the lowest threshold of any
criterion leaves at exit 0, even if softmax rounds down.

`register_criterion` adds a criterion from another package (docs/extending.md). The
evaluator scores all exits of a bank at once; the engine scores exit i of the rows that
have reached it, with zeros for later exits. The same function serves both only if it is
causal and treats each row on its own, so both are checked at registration.
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
from sweet_jax.settings.registries import CRITERIA, LOGIT_CRITERIA

# A threshold that no score reaches: every example runs every exit.
FULL = float("inf")


def _confidence(logits_NEC: Array) -> Array:
    return jax.nn.softmax(logits_NEC).max(axis=-1)


def _entropy(logits_NEC: Array) -> Array:
    # entr(0) is 0 if a probability underflows; p * log p would be NaN.
    entropy_NE = jax.scipy.special.entr(jax.nn.softmax(logits_NEC)).sum(axis=-1)
    return 1.0 - entropy_NE / math.log(logits_NEC.shape[-1])


def _margin(logits_NEC: Array) -> Array:
    probs_NEC = jax.nn.softmax(logits_NEC)
    # The second largest is the largest of the others; with a tie the margin is 0. On
    # CPU this is faster than top_k, which sorts.
    predictions_NE1 = jnp.argmax(probs_NEC, axis=-1, keepdims=True)
    classes_11C = jnp.arange(probs_NEC.shape[-1])[None, None]
    others_NEC = jnp.where(classes_11C == predictions_NE1, 0.0, probs_NEC)
    return probs_NEC.max(axis=-1) - others_NEC.max(axis=-1)


def _patience(logits_NEC: Array) -> Array:
    """Returns how many consecutive exits, up to this one, have its prediction."""
    predictions_NE = jnp.argmax(logits_NEC, axis=-1)
    exits_E = jnp.arange(predictions_NE.shape[1])
    # A streak starts at exit 0 and wherever the prediction differs from the previous.
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
    """Adds an exit criterion; without `scores_fn`, returns a decorator that does.

    Args:
        name: its name in `evaluate.criteria` and `predict`.
        scores_fn: see `Criterion`.
        score_range: lowest and highest score, or a function of (num_classes, num_exits)
            that returns them.
        counts: see `Criterion`.
        reads_lte: see `Criterion`.
        replace: replace an earlier registration of the name.

    Raises:
        ValueError: the name is taken, or the function fails `check_criterion`.
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
    """Returns the score of every exit on every example; higher is more certain.

    Args:
        criterion: a registered name.
        logits_NEC: calibrated logits, at least two classes.
        lte_NE: learning-to-exit scores, scaled by `learned.scale_lte`, for criteria
            that read them.

    Returns:
        float32 scores within `threshold_range`; those of exit i depend only on exits up
        to i.

    Raises:
        ValueError: the criterion is unknown, there are fewer than two classes, or the
            criterion reads learning-to-exit scores and there are none.
    """
    check_lte(criterion, lte_NE is not None)
    _, num_exits, num_classes = logits_NEC.shape
    threshold_range(criterion, num_classes, num_exits)  # Checks the numbers.
    row = find_criterion(criterion)
    read = (logits_NEC, lte_NE) if row.reads_lte else (logits_NEC,)
    return _compute_scores(row, *read)


# Compiled per `Criterion`, not per name, because a name may be registered again.
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
    """Returns the grid of thresholds, increasing over the criterion's range.

    It has `num_thresholds` equal steps, as in the released code; a criterion with
    `counts` (patience) has one threshold per whole number instead.
    """
    low, high = threshold_range(criterion, num_classes, num_exits)
    if find_criterion(criterion).counts:
        return np.arange(low, high + 1, dtype=np.float32)
    return np.linspace(low, high, num_thresholds).astype(np.float32)


def check_threshold(
    criterion: str, threshold: float, num_classes: int, num_exits: int
) -> None:
    """Raises ValueError unless the threshold is in its criterion's range or `FULL`.

    Compared in float32, like scores: 0.33333333 is accepted for 1/3.
    """
    low, high = threshold_range(criterion, num_classes, num_exits)
    # Written so that NaN is refused, too.
    if threshold != FULL and not (
        np.float32(low) <= np.float32(threshold) <= np.float32(high)
    ):
        raise ValueError(
            f"threshold={threshold:.7g} is outside the range of criterion={criterion}"
            f" with {num_classes} classes and {num_exits} exits: allowed is {low:.7g}"
            f" to {high:.7g}, or inf to run every exit"
        )


def check_lte(criterion: str, has_lte: bool) -> None:
    """Raises ValueError if a criterion is unknown, or reads scores a model lacks."""
    if find_criterion(criterion).reads_lte and not has_lte:
        raise ValueError(
            f"criterion={criterion} reads learning-to-exit scores, and this model has"
            " no heads for them: train with exits.learn_to_exit=True, or use"
            f" {', '.join(LOGIT_CRITERIA)}"
        )
