"""Sources of other packages: names, rows of every form, and what they get wrong."""

import collections
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from sweet_jax.data.registered import register_source
from sweet_jax.data.sources import load_task
from sweet_jax.data.tasks import get_task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.settings.registries import SOURCES

pytestmark = pytest.mark.usefixtures("registries")

TEXTS, LABELS = ["good", "bad", "fine", "poor"], ["pos", "neg", "pos", "neg"]
PAIRS = list(zip(TEXTS, LABELS, strict=True))


@pytest.mark.parametrize(
    "rows",
    [
        PAIRS,
        {"text": TEXTS, "label": LABELS},
        [{"text": text, "label": label} for text, label in PAIRS],
        pd.DataFrame({"text": TEXTS, "label": LABELS}),
    ],
)
def test_a_source_returns_rows_in_any_form(rows):
    asked = []

    @register_source("reviews")
    def load(name: str) -> dict[str, Any]:
        asked.append(name)
        return {"train": rows, "dev": rows, "test": rows}

    for task in ("reviews", "reviews/2024/may"):
        raw = load_task(DataSettings(task=task, metric="matthews"))
        assert set(raw.splits) == {"train", "validation", "test"}
        assert raw.label_names == ("neg", "pos")
        assert list(raw.splits["train"].texts) == TEXTS
        assert (raw.task.name, raw.task.metric) == (task, "matthews")
    assert asked == ["", "2024/may"]


def test_columns_are_named_as_for_any_task():
    rows = {"a": TEXTS, "b": TEXTS[::-1], "stars": LABELS}
    register_source("reviews", lambda name: {"train": rows, "test": rows})
    settings = DataSettings(
        task="reviews", text_columns=("a", "b"), label_column="stars"
    )
    assert list(load_task(settings).splits["test"].pairs or ()) == TEXTS[::-1]
    with pytest.raises(
        ValueError,
        match=r"^data.task=reviews: train .*--config.data.text_columns=",
    ):
        load_task(DataSettings(task="reviews"))


def test_a_registered_name_comes_before_the_hub_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews" / "x").mkdir(parents=True)
    assert get_task("reviews/x").kind == "folder"
    register_source("reviews", lambda name: {"train": PAIRS})
    assert get_task("reviews/x").kind == "reviews"
    assert get_task("owner/reviews").kind == "hub"
    with pytest.raises(ValueError, match="did you mean reviews"):
        get_task("revievs")
    with pytest.raises(ValueError, match=r"allowed are rotten_tomatoes, .*reviews"):
        get_task("")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imdb", "the name of a task: choose another"),
        ("tfds", "is registered already: choose another name"),
        ("hub", "is registered already"),
        ("my source", "choose such a name"),
    ],
)
def test_names_that_are_taken_are_refused(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        register_source(name, lambda name: {"train": PAIRS})


def _fail(error: Exception) -> Callable[[str], Any]:
    def load(name: str) -> Any:
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (_fail(OSError("no\nnetwork")), r"its source fails \(OSError: no\)"),
        (_fail(KeyError("x")), "its source fails"),
        (lambda name: PAIRS, "returns a list; expected a dict of rows by split"),
        (lambda name: None, "returns a NoneType"),
        (lambda name: {"train": PAIRS, "all": PAIRS}, "the splits train, all; expecte"),
        (lambda name: {"test": PAIRS}, "returns no split `train`"),
        (lambda name: {}, "returns no split `train`"),
        (lambda name: {3: PAIRS}, "the splits 3"),
        (lambda name: {"train": []}, "train has no rows"),
        (lambda name: {"train": [("good", None)] * 4}, "train row 0 has no label"),
        (lambda name: {"train": 3}, "train is of type int"),
        (lambda name: collections.Counter("ab"), "the splits a, b"),
    ],
)
def test_what_are_no_rows_is_refused_in_one_line(load: Any, message: str):
    register_source("reviews", load)
    with pytest.raises(ValueError, match=message) as error:
        load_task(DataSettings(task="reviews/2024"))
    assert str(error.value).startswith("data.task=reviews/2024")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [3, {"train": PAIRS}])
def test_what_is_no_function_is_refused(value: Any):
    with pytest.raises(ValueError, match=r"'reviews' is a (int|dict): "):
        register_source("reviews", value)
    with pytest.raises(ValueError, match=r"register it with sweet_jax.register_source"):
        SOURCES.register("reviews", value)
