"""Rows in memory as a task: its name, its splits and what becomes of them."""

import gc
from typing import Any

import pandas as pd
import pytest

from sweet_jax.data.in_memory import hold_rows
from sweet_jax.data.sources import load_task
from sweet_jax.settings.fields import DataSettings

FRAME = pd.DataFrame({"text": ["a", "b", "c"], "label": ["yes", "no", "yes"]})


def test_other_splits_are_read_from_the_columns_of_the_training_rows():
    # Found in the training rows, and taken although others have further candidates.
    test = FRAME.assign(message="none of the texts", category="no")
    held = hold_rows({"train": FRAME, "test": test})
    assert held.tables["test"].texts == ["a", "b", "c"]
    assert held.tables["test"].labels == ["yes", "no", "yes"]


def test_the_task_is_another_one_as_soon_as_anything_differs():
    def name(**splits: Any) -> str:
        return hold_rows(splits).task_name

    rows = [("a", "x"), ("b", "y")]
    names = [
        name(train=rows),
        name(train=rows[::-1]),
        name(train=[("a", "y"), ("b", "x")]),
        name(train=[(("a", "x"), "x"), (("b", "y"), "y")]),
        name(train=rows, test=rows),
        name(train=rows, validation=rows),
    ]
    assert len(set(names)) == len(names)
    assert name(train=rows) == names[0]


def test_rows_pass_the_same_checks_as_those_of_files():
    held = hold_rows({"train": [("a", 0), ("a", 0), ("null", 1)]})
    raw = load_task(DataSettings(task=held.task_name))
    assert raw.label_names == ("0", "1")
    assert any("train row 2" in note for note in raw.notes)


def test_a_name_outlives_its_rows_as_an_error_alone():
    held = hold_rows({"train": [("x", 0), ("y", 1)]})
    name = held.task_name
    same = hold_rows({"train": [("x", 0), ("y", 1)]})
    assert same is held
    del held
    gc.collect()
    load_task(DataSettings(task=name))
    del same
    gc.collect()
    with pytest.raises(ValueError, match=r"sweet_jax\.train with the same rows again"):
        load_task(DataSettings(task=name))
