"""Means and paired differences over seeds, with confidence intervals, as JSON values.

A `Sample` contains the measured cells of one method by seed. Differences and averages
over tasks are samples, too. So every number of a study is a mean over entries of a
sample, and all intervals are computed here.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from sweet_jax.evaluation.statistics import (
    Interval,
    student_interval,
    two_level_interval,
)
from sweet_jax.study.measure import Measured

Sample: TypeAlias = dict[int, Measured]

# Decimals in study.json: far more precise than any interval.
_DIGITS = 6


def subtract(ours: Sample, theirs: Sample) -> Sample:
    """Returns the paired differences on the seeds that both have.

    Draws are subtracted pairwise, since both methods are scored on the same rows.
    """
    return {
        seed: Measured(
            _combine([ours[seed].values, theirs[seed].values], (1.0, -1.0)),
            _combine([ours[seed].draws, theirs[seed].draws], (1.0, -1.0)),
        )
        for seed in ours
        if seed in theirs
    }


def average(samples: Sequence[Sample]) -> Sample:
    """Returns the mean over tasks, on the seeds that all of them have.

    Cells of two tasks with the same seed share only their fresh weights. Averaging per
    seed first gives S values for Student's t, which is correct whether or not tasks are
    correlated.
    """
    share = [1 / len(samples)] * len(samples)
    seeds = [seed for seed in samples[0] if all(seed in s for s in samples)]
    return {
        seed: Measured(
            _combine([s[seed].values for s in samples], share),
            _combine([s[seed].draws for s in samples], share),
        )
        for seed in seeds
    }


def _combine(
    parts: Sequence[dict[str, np.ndarray]], factors: Iterable[float]
) -> dict[str, np.ndarray]:
    """Returns weighted sums of the arrays that all parts have with equal shapes."""
    factors = list(factors)
    return {
        name: sum(
            (f * p[name] for f, p in zip(factors, parts, strict=True)),
            start=np.zeros_like(first),
        )
        for name, first in parts[0].items()
        if all(name in p and p[name].shape == first.shape for p in parts)
    }


def describe_mean(
    sample: Sample, name: str, entries: Sequence[int]
) -> dict[str, Any] | None:
    """Returns `mean`, Student's `interval` over seeds, and the `values` per seed.

    Args:
        sample: measured cells by seed.
        name: name of the numbers.
        entries: entries to average, such as exits.

    Returns:
        None if a seed lacks the number.
    """
    values_S = _gather(sample, name, entries)
    if values_S is None:
        return None
    return {
        "mean": _round(float(values_S.mean())),
        "interval": _plain(student_interval(values_S)),
        "values": [_round(float(value)) for value in values_S],
    }


def describe_difference(
    sample: Sample, name: str, entries: Sequence[int]
) -> dict[str, Any] | None:
    """Returns a mean difference with the interval over seeds and that over both levels.

    `over_seeds` is Student's interval, `over_seeds_and_rows` that of the two-level
    bootstrap, None for numbers without draws. Otherwise see `describe_mean`.
    """
    described = describe_mean(sample, name, entries)
    if described is None:
        return None
    columns = [
        measured.draws[name][:, list(entries)].mean(axis=1)
        for measured in sample.values()
        if name in measured.draws
    ]
    both = None
    if columns:
        values_S = _gather(sample, name, entries)
        assert values_S is not None, "describe_mean returned a mean"
        both = two_level_interval(values_S, np.stack(columns, axis=1))
    return {
        "mean": described["mean"],
        "over_seeds": described["interval"],
        "over_seeds_and_rows": _plain(both),
        "values": described["values"],
    }


def describe_curve(
    sample: Sample, name: str, costs_G: Float[np.ndarray, " G"]
) -> dict[str, Any]:
    """Returns a mean curve and, with several seeds, its band of Student intervals."""
    curves_SG = np.stack([measured.values[name] for measured in sample.values()])
    bands = [student_interval(column) for column in curves_SG.T]
    known = [band for band in bands if band is not None]
    return {
        "cost": [_round(float(cost)) for cost in costs_G],
        "mean": [_round(float(mean)) for mean in curves_SG.mean(axis=0)],
        "low": [_round(band.low) for band in known] or None,
        "high": [_round(band.high) for band in known] or None,
    }


def _gather(
    sample: Sample, name: str, entries: Sequence[int]
) -> Float[np.ndarray, " S"] | None:
    if not sample or any(name not in measured.values for measured in sample.values()):
        return None
    values_S = np.array(
        [measured.values[name][list(entries)].mean() for measured in sample.values()]
    )
    return values_S if np.isfinite(values_S).all() else None


def _plain(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [_round(bound) for bound in interval]


def _round(value: float) -> float:
    return round(value, _DIGITS)
