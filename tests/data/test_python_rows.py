"""Rows of Python: every form gives the same table, and a wrong one is one line."""

from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from sweet_jax.data.examples import RawTask
from sweet_jax.data.in_memory import HeldRows, hold_rows
from sweet_jax.data.sources import load_task
from sweet_jax.settings.fields import DataSettings

TEXTS = ["a good film", "a bad film", "a warm plot", "a dull plot"]
LABELS = ["yes", "no", "yes", "no"]
PAIRED = [("a", "b"), ("c", "d")]
FRAME = pd.DataFrame({"id": [7, 8, 9, 10], "text": TEXTS, "label": LABELS})
NAN = float("nan")


def rename(text: str, label: str) -> pd.DataFrame:
    return FRAME.rename(columns={"text": text, "label": label})


# Name -> training rows, text and label.
FORMS: dict[str, tuple[Any, Any, Any]] = {
    "pairs": (list(zip(TEXTS, LABELS, strict=True)), None, None),
    "tuple of pairs": (tuple(zip(TEXTS, LABELS, strict=True)), None, None),
    "lists as pairs": (list(map(list, zip(TEXTS, LABELS, strict=True))), None, None),
    "texts and labels": (TEXTS, None, LABELS),
    "numpy arrays": (np.array(TEXTS), None, np.array(LABELS)),
    "array of objects": (np.array(TEXTS, object), None, tuple(LABELS)),
    "dict of columns": ({"text": TEXTS, "label": LABELS}, None, None),
    "named columns": ({"message": TEXTS, "kind": LABELS}, "message", "kind"),
    "dict of Series": ({"text": FRAME["text"], "label": LABELS}, None, "label"),
    "records": (FRAME.to_dict("records"), None, None),
    "DataFrame": (FRAME, None, None),
    "DataFrame, named": (rename("message", "kind"), "message", "kind"),
    "DataFrame of categories": (FRAME.astype({"label": "category"}), None, None),
    "DataFrame, labels apart": (FRAME[["text"]], "text", FRAME["label"]),
    "Series": (FRAME["text"], None, FRAME["label"]),
    "data set": (datasets.Dataset.from_pandas(FRAME), "text", "label"),
}


def load(splits: dict[str, Any], text: Any = None, label: Any = None) -> RawTask:
    held = hold_rows(splits, text, label)
    return load_task(DataSettings(task=held.task_name))


def read(held: HeldRows, split: str = "train") -> tuple[Any, ...]:
    table = held.tables[split]
    return table.texts, table.pairs, table.labels


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows_and_the_same_task(form):
    data, text, label = FORMS[form]
    expected = hold_rows({"train": list(zip(TEXTS, LABELS, strict=True))})
    held = hold_rows({"train": data}, text, label)
    assert read(held) == (TEXTS, None, LABELS)
    assert held.task_name == expected.task_name


@pytest.mark.parametrize(
    ("data", "text", "label"),
    [
        ([(pair, i) for i, pair in enumerate(PAIRED)], None, None),
        (PAIRED, None, [0, 1]),
        (np.array(PAIRED), None, np.arange(2)),
        (
            pd.DataFrame(PAIRED, columns=["p", "h"]).assign(y=[0, 1]),
            ("p", "h"),
            "y",
        ),
    ],
)
def test_pairs_of_texts(data, text, label):
    held = hold_rows({"train": data}, text, label)
    assert read(held) == (["a", "c"], ["b", "d"], ["0", "1"])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, 0], ["1", "0"]),
        (np.array([1, 0], np.int8), ["1", "0"]),
        ([np.int64(1), 0], ["1", "0"]),
        (np.array([True, False]), ["True", "False"]),
        ([True, np.bool_(False)], ["True", "False"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (pd.Series([1, 0], dtype="Int64"), ["1", "0"]),
    ],
)
def test_labels_of_every_kind_have_names(labels, names):
    assert hold_rows({"train": TEXTS[:2]}, label=labels).tables["train"].labels == names


def test_classes_of_a_data_set_keep_their_names_and_order():
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["worse", "better"]),
    )
    data = datasets.Dataset.from_dict(
        {"text": TEXTS, "label": [1, 0, 1, 0]}, features=features
    )
    held = hold_rows({"train": data, "test": data})
    assert held.tables["test"].labels == ["better", "worse"] * 2
    raw = load_task(DataSettings(task=held.task_name))
    assert raw.label_names == ("worse", "better")
    assert raw.splits["train"].labels.tolist() == [1, 0, 1, 0]


# Name -> splits, text, label, and what the line says.
WRONG: dict[str, tuple[Any, Any, Any, str]] = {
    "no such columns": (
        FRAME, "message", "category",
        "train has no column 'message' and no column 'category'; its columns are 'id'"
        " (7), 'text' ('a good film'), 'label' ('yes'): set text=text label=label",
    ),
    "columns of other names": (
        rename("a", "b"), None, None, "its columns are 'id' (7), 'a' ("
    ),
    "NaN as a text": (
        FRAME.assign(text=["a", "b", None, "d"]), None, None,
        "train index 2 has no text (nan): fill it or drop the row",
    ),
    "NaN under an index": (
        pd.Series(["a", NAN], index=["x", "y"]), None, [0, 1],
        "train index y has no text",
    ),
    "None as a text": (
        [("a", 0), (None, 1)], None, None, "train row 1 has no text (None)"
    ),
    "NA as a text": ([("a", 0), (pd.NA, 1)], None, None, "train row 1 has no text"),
    "a number as a text": (
        [("a", 0), (3, 1)], None, None, "train row 1 has an int 3 as its text"
    ),
    "half a character": (
        [("a", 0), ("\ud800", 1)], None, None, "a lone surrogate"
    ),
    "an empty text": ([("a", 0), (" ", 1)], None, None, "row 1 has an empty text"),
    "None as a label": (
        [("a", 0), ("b", None)], None, None, "train row 1 has no label (None), expected"
    ),
    "NaN as a label": (
        FRAME.assign(label=["a", None, "b", "a"]), None, None,
        "train index 1 has no label",
    ),
    "a blank label": (
        [("a", "x"), ("b", " ")], None, None, "row 1 has a label (a str ' ')"
    ),
    "a float as a label": (
        [("a", 0.0), ("b", 1.0)], None, None, "train row 0 has a label (a float 0.0)"
    ),
    "a list as a label": ([("a", [1]), ("b", [2])], None, None, "(a list [1])"),
    "mixed labels": (
        [("a", 0), ("b", "1")], None, None,
        "of mixed types: train row 0 is an int 0 and train row 1 is a str '1': convert",
    ),
    "booleans among numbers": ([("a", 0), ("b", True)], None, None, "mixed types"),
    "one class": ([("a", 0), ("b", 0)], None, None, "only one class, '0'"),
    "other lengths": (
        TEXTS, None, LABELS[:3], "different lengths (texts 4, labels 3): give one label"
    ),
    "columns of other lengths": (
        {"text": TEXTS, "label": LABELS[:3]}, None, None, "(text 4, label 3)"
    ),
    "texts alone": (
        TEXTS, None, None,
        "train row 0 is a str 'a good film', expected a (text, label) pair, or"
        " label=[...] beside the texts",
    ),
    "three in a row": ([("a", "b", 0)], None, None, "expected a (text, label) pair"),
    "texts beside pairs": ([("a", 0), (("b", "c"), 1)], None, None, "give one kind"),
    "names for a list": ([("a", 0)], "text", None, "has no columns, so no column"),
    "a label for a list": (TEXTS, None, "label", "no column 'label'"),
    "a record that lacks a key": (
        [{"text": "a", "label": 0}, {"text": "b"}], None, None, "row 1 has no 'label'"
    ),
    "records beside others": (
        [{"text": "a", "label": 0}, "b"], None, None,
        "row 1 is a str 'b', expected a dict",
    ),
    "a text as a column": ({"text": "a", "label": [0]}, None, None, "expected a list"),
    "three columns": (FRAME, ("id", "text", "label"), "y", "text names 3 columns"),
    "a label as a text": (FRAME, "label", "label", "so it cannot be text"),
    "twice the same name": (
        pd.concat([FRAME, FRAME[["text"]]], axis=1), None, None,
        "two columns of the same name 'text'",
    ),
    "a generator": (
        (row for row in [("a", 0)]), None, None, "train is of type generator"
    ),
    "nothing": (None, None, None, "train is of type NoneType: expected a list of"),
    "no rows": ([], None, None, "train has no rows"),
    "an empty table": (FRAME[:0], None, None, "train has no rows"),
    "a number as a label column": (FRAME, "text", 3, "label=3: expected the name"),
    "a stream": (
        datasets.Dataset.from_pandas(FRAME).to_iterable_dataset(), None, None,
        "train is of type IterableDataset",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_rows_are_one_line(case):
    data, text, label, message = WRONG[case]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load({"train": data}, text, label)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ([("a", "maybe")], "test row 0 has the label 'maybe', which the training rows"),
        ([("a", 1)], "mixed types: train index 0 is a str 'yes' and test row 0 is an"),
        (TEXTS, r"expected a (text, label) pair, such as list(zip(texts, labels))"),
        ([(("a", "b"), "yes")], "test has two texts a row and train has one text"),
        (FRAME.drop(columns="label"), "test has no column 'label'"),
    ],
)
def test_wrong_test_rows_are_one_line(test, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load({"train": FRAME, "test": test})
    assert message in str(error.value)


def test_the_columns_are_remembered():
    frame = rename("said", "kind")
    assert load({"train": frame}, "said", "kind").columns[:2] == (("said",), "kind")
    assert load({"train": frame}, "said", frame["kind"]).columns[:2] == (("said",), "")
    assert not any(load({"train": list(zip(TEXTS, LABELS, strict=True))}).columns)
