"""Calibration rows are held out, or have no labels."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_splits import (
    make_few_shot,
    make_raw,
    make_settings,
)

from sweet_jax.arrays import UNLABELLED
from sweet_jax.data.calibration_rows import assign_parts
from sweet_jax.data.splits import make_splits
from sweet_jax.settings.from_config import from_config_dict

label_arrays = st.lists(st.integers(0, 3), min_size=1, max_size=200).map(
    lambda values: np.array(values, np.int32)
)


@given(label_arrays)
def test_parts_halve_each_class_and_the_whole(labels):
    part = assign_parts(labels)
    assert set(part.tolist()) <= {0, 1}
    for rows in (np.full(len(labels), True), *(labels == c for c in np.unique(labels))):
        assert abs((part[rows] == 0).sum() - (part[rows] == 1).sum()) <= 1


def test_parts_do_not_follow_the_published_order():
    part = assign_parts(np.zeros(40, np.int32))
    assert part.tolist() not in ([0, 1] * 20, [0] * 20 + [1] * 20)


def test_a_small_validation_split_is_used_whole_and_said():
    splits = make_splits(make_raw(train=600, validation=30, test=9), make_settings())
    assert len(splits.calibration) == 30
    assert splits.notes == (
        "the validation split has 30 rows: all are calibration examples"
        " (data.calibration_examples=50)",
    )


@pytest.mark.parametrize(
    "sizes",
    [
        {"train": 600, "test": 100},
        {"train": 600, "validation": 80},
        {"train": 600, "validation": 80, "test": 100},
        {"train": 60, "test": 20},
    ],
)
def test_no_label_but_those_of_the_training_rows_reaches_calibration(sizes):
    raw = make_raw(**sizes)
    splits = make_splits(raw, make_few_shot(8))
    assert splits.part.tolist() == [UNLABELLED] * len(splits.calibration)
    assert not splits.calibration.labels.any()
    others = {
        name: dataclasses.replace(rows, labels=1 - rows.labels)
        for name, rows in raw.splits.items()
        if name != "train"
    }
    flipped = dataclasses.replace(raw, splits={**raw.splits, **others})
    again = make_splits(flipped, make_few_shot(8))
    for name in ("calibration", "train"):
        one, other = getattr(splits, name), getattr(again, name)
        assert one.texts == other.texts
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("sizes", "origin"),
    [
        ({"train": 60, "validation": 30, "test": 9}, "validation split, no labels"),
        ({"train": 600, "test": 9}, "training rows that are not drawn, no labels"),
        ({"train": 20, "test": 9}, "the test rows"),
        ({"train": 20, "validation": 9}, "the test rows"),
    ],
)
def test_calibration_texts_come_from_rows_that_are_not_trained_on(sizes, origin):
    splits = make_splits(make_raw(**sizes), make_few_shot(8))
    assert splits.origin["calibration"] == origin
    (note,) = [note for note in splits.notes if note.startswith("no label outside")]
    assert origin in note
    assert "temperatures are 1" in note
    assert not any("calibration row has the class" in note for note in splits.notes)
    if origin == "the test rows":
        assert splits.calibration.texts == splits.test.texts


def test_few_rows_are_all_trained_on_unless_calibration_is_asked_for():
    """A fifth must be 50 rows, and 4 of each class."""
    usual = from_config_dict({})
    for num_rows, held in ((249, 0), (250, 50)):
        splits = make_splits(make_raw(train=num_rows, test=30), usual)
        assert len(splits.train) == num_rows - held
        assert splits.reads_calibration_labels == (held > 0)
    raw = dataclasses.replace(
        make_raw(train=300, test=30), label_names=tuple(map(str, range(20)))
    )
    assert len(make_splits(raw, usual).train) == 300
    splits = make_splits(make_raw(train=40, test=30), usual)
    assert "a fifth of them, 8, would be too few to calibrate on" in splits.notes[0]
    asked = from_config_dict({"data": {"calibration_examples": 1000}})
    assert len(make_splits(make_raw(train=40, test=30), asked).calibration) == 8
    best = from_config_dict({"train": {"select": "best"}})  # Reads their labels.
    splits = make_splits(make_raw(train=40, test=30), best)
    assert splits.reads_calibration_labels
    assert len(splits.calibration) == 8
    none = from_config_dict({"data": {"calibration_examples": 0}})
    splits = make_splits(make_raw(train=600, validation=80, test=30), none)
    assert splits.origin["calibration"] == "validation split, no labels"
