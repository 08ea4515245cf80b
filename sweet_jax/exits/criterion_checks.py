"""Checks a registered criterion on random logits.

A criterion that reads later exits or other rows works in evaluation, where all logits
are known, but gives other results in real early exit, where they are not.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import jax
import numpy as np

from sweet_jax.exits.criterion import Criterion
from sweet_jax.system.errors import describe_error

# (exits, classes); the second has no seam and no third class.
_SHAPES = ((4, 3), (1, 2))
_NUM_ROWS = 32
# Relative to the range of the scores: larger than the rounding of float32 sums.
_TOLERANCE = 1e-4
# (What is wrong, what to do.)
_Problem: TypeAlias = tuple[str, str]


def check_criterion(name: str, row: Any) -> None:
    """Raises ValueError, in one line, unless a criterion meets the requirements.

    Scores must be finite and within the range, and whole numbers with `counts`; those
    of exit i must depend only on exits up to i and on their own row.

    Args:
        name: its name, for the message.
        row: the value to register.
    """
    if not (hasattr(row, "scores_fn") and callable(row.scores_fn)):
        raise ValueError(
            f"criterion {name!r} is a {type(row).__name__}: make it with"
            " sweet_jax.register_criterion, from a function of the logits"
        )
    for num_exits, num_classes in _SHAPES:
        for problem, advice in _find_problems(row, num_exits, num_classes):
            raise ValueError(
                f"criterion {name!r} {problem} with {num_classes} classes and"
                f" {num_exits} exits: {advice}"
            )


def _find_problems(
    row: Criterion, num_exits: int, num_classes: int
) -> Iterator[_Problem]:
    """Yields the problems of a criterion; the first one is reported."""
    try:
        low, high = map(float, row.range_fn(num_classes, num_exits))
    except Exception as error:  # Another package's code may raise anything.
        yield (
            f"has no score range ({describe_error(error)})",
            "score_range is (lowest, highest), or a function of the numbers of classes"
            " and exits that returns them",
        )
        return
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        yield (
            f"has the score range {low:g} to {high:g}",
            "the lowest and the highest score must be finite and in this order",
        )
    traced = jax.jit(row.scores_fn)

    def score(logits_NEC: np.ndarray, lte_NE: np.ndarray) -> np.ndarray:
        return np.asarray(traced(logits_NEC, *([lte_NE] if row.reads_lte else [])))

    inputs = _make_inputs(num_exits, num_classes)
    try:
        for scores_NE in (score(*inputs), score(*_make_extremes(*inputs))):
            yield from _find_wrong_scores(scores_NE, row.counts, low, high, num_exits)
        yield from _find_dependence(score, inputs, _TOLERANCE * (high - low))
    except Exception as error:
        yield (
            f"fails ({describe_error(error)})",
            "it must take an array [rows, exits, classes]"
            + (" and one [rows, exits]" if row.reads_lte else "")
            + ", and use jax.numpy without Python's if on values",
        )


def _find_wrong_scores(
    scores_NE: np.ndarray, counts: bool, low: float, high: float, num_exits: int
) -> Iterator[_Problem]:
    """Yields the problems of the scores themselves."""
    if scores_NE.shape != (_NUM_ROWS, num_exits) or scores_NE.dtype.kind not in "fiub":
        yield (
            f"returns {scores_NE.dtype.name} of shape {scores_NE.shape} for"
            f" {_NUM_ROWS} rows",
            "one number per row and exit is expected",
        )
        return
    scores_NE = scores_NE.astype(np.float64)
    if not np.isfinite(scores_NE).all():
        yield (
            "gives scores that are not finite",
            "it must allow equal and saturated logits (0 * log 0 is NaN; jax.scipy's"
            " special.entr is 0 there)",
        )
    tolerance = _TOLERANCE * (high - low)
    found = scores_NE.min(), scores_NE.max()
    if found[0] < low - tolerance or found[1] > high + tolerance:
        yield (
            f"scores from {found[0]:.4g} to {found[1]:.4g}, outside of its range"
            f" {low:g} to {high:g}",
            "give the true range as score_range",
        )
    if counts and np.any(np.append(scores_NE.ravel(), (low, high)) % 1):
        yield ("has counts=True, but scores that are not whole", "drop counts=True")


def _find_dependence(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    inputs: tuple[np.ndarray, np.ndarray],
    tolerance: float,
) -> Iterator[_Problem]:
    """Yields dependences on values that real early exit does not know."""
    expected_NE = score(*inputs)

    def changes(replaced: Any, kept: Any) -> bool:
        changed = tuple(array.copy() for array in inputs)
        for array in changed:
            array[replaced] = 0
        found, expected = score(*changed)[kept], expected_NE[kept]
        return not np.allclose(found, expected, rtol=0, atol=tolerance)

    # As in the engine, outputs that are not computed yet are 0.
    for i in range(expected_NE.shape[1] - 1):
        if changes(np.s_[:, i + 1 :], np.s_[:, : i + 1]):
            yield (
                f"is not causal: exit {i}'s score changes with the logits of later"
                " exits",
                "real early exit has not computed them; use exits up to i for column i",
            )
    half = _NUM_ROWS // 2
    if changes(np.s_[half:], np.s_[:half]):
        yield (
            "is not a function of each row alone: scores change with other rows",
            "the other rows of a batch vary; reduce over classes or exits only",
        )


def _make_inputs(num_exits: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits and learning-to-exit scores."""
    rng = np.random.default_rng(0)
    logits_NEC = 3 * rng.normal(size=(_NUM_ROWS, num_exits, num_classes))
    lte_NE = rng.uniform(size=logits_NEC.shape[:2])
    return logits_NEC.astype(np.float32), lte_NE.astype(np.float32)


def _make_extremes(
    logits_NEC: np.ndarray, lte_NE: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs with some saturated rows and rows of ties."""
    logits_NEC, lte_NE = logits_NEC.copy(), lte_NE.copy()
    logits_NEC[0] = 0
    logits_NEC[1] = 1e4 * np.eye(logits_NEC.shape[2])[0]
    logits_NEC[2, :, :2] = logits_NEC[2].max() + 1
    lte_NE[:3] = np.arange(3)[:, None] / 2
    return logits_NEC, lte_NE
