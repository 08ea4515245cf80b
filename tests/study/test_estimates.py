"""Means and paired differences over seeds."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from study_files import (
    METHODS,
    aggregate,
    make_study,
)

from sweet_jax.study.estimates import (
    Sample,
    average,
    describe_difference,
    describe_mean,
    subtract,
)
from sweet_jax.study.measure import Measured


def make_sample(seeds: Iterable[int], offset: float = 0.0) -> Sample:
    """Returns a method's numbers and draws of two exits, by seed."""
    rngs = {seed: np.random.default_rng([seed, int(100 * offset)]) for seed in seeds}
    return {
        seed: Measured(
            {"exits": rng.normal(0.8 + offset, 0.01, 2)},
            {"exits": rng.normal(0.8 + offset, 0.02, (50, 2))},
        )
        for seed, rng in rngs.items()
    }


def test_differences_are_of_seeds_that_both_have():
    ours, theirs = make_sample((0, 1, 3), 0.05), make_sample((1, 2, 3))
    difference = subtract(ours, theirs)
    assert list(difference) == [1, 3]
    for seed, measured in difference.items():
        for part in ("values", "draws"):
            mine, other = (getattr(s[seed], part)["exits"] for s in (ours, theirs))
            np.testing.assert_array_equal(
                getattr(measured, part)["exits"], mine - other
            )
    described = describe_difference(difference, "exits", [1])
    values = [ours[s].values["exits"][1] - theirs[s].values["exits"][1] for s in (1, 3)]
    assert described["values"] == pytest.approx(values, abs=1e-6)
    assert described["mean"] == pytest.approx(np.mean(values), abs=1e-6)
    low, high = described["over_seeds"]
    t, _ = stats.t.interval(0.95, 1, 0, stats.sem(values))
    assert (low + high) / 2 == pytest.approx(np.mean(values), abs=2e-6)
    assert (high - low) / 2 == pytest.approx(-t, abs=2e-6)


def test_a_difference_of_averages_is_the_average_of_differences():
    tasks = [(make_sample((0, 1), 0.1), make_sample((0, 1))) for _ in range(2)]
    one = average([subtract(ours, theirs) for ours, theirs in tasks])
    other = subtract(*(average(list(samples)) for samples in zip(*tasks, strict=True)))
    for seed in (0, 1):
        for part in ("values", "draws"):
            np.testing.assert_allclose(
                getattr(one[seed], part)["exits"], getattr(other[seed], part)["exits"]
            )


def test_a_number_that_a_seed_lacks_has_no_mean():
    sample = make_sample((0, 1))
    assert describe_mean(sample, "area/lte", [0]) is None
    assert describe_mean({}, "exits", [0]) is None
    sample[1].values["exits"][1] = np.nan
    assert describe_mean(sample, "exits", [0, 1]) is None
    assert describe_mean(sample, "exits", [0]) is not None


def collect(value: Any, name: str) -> list[Any]:
    """Returns the values of a key, at any depth."""
    if isinstance(value, list):
        return [found for part in value for found in collect(part, name)]
    if not isinstance(value, dict):
        return []
    found = [value[name]] if name in value else []
    return found + [x for part in value.values() for x in collect(part, name)]


def test_one_seed_has_no_interval_anywhere(tmp_path: Path):
    record = aggregate(make_study(tmp_path / "s", METHODS, seeds=(0,)), 30)
    for name in ("interval", "over_seeds", "over_seeds_and_rows", "low", "high"):
        assert set(collect(record, name)) == {None}, name
    assert set(collect(record, "verdict")) == {"no interval"}
    json.dumps(record, allow_nan=False)
