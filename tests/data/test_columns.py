"""Published splits: which are read, what their labels name, which rows are left out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.data.columns import ask_columns, find_splits, make_table, name_label
from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import MAIN_FLAGS, Columns
from sweet_jax.data.tasks import get_task
from sweet_jax.settings.fields import DataSettings

LABELS = st.one_of(st.none(), st.integers(-1, 2))


def make(
    values: dict[str, Any],
    names: tuple[str, ...] = (),
    texts: tuple[str, ...] = ("text",),
    training_has_minus_one: bool = False,
) -> Table:
    return make_table(
        "set (test)",
        values,
        Columns(texts, "label"),
        names,
        MAIN_FLAGS,
        training_has_minus_one,
    )


def make_rows(labels: list[Any]) -> dict[str, list[Any]]:
    return {"text": [f"row {i}" for i in range(len(labels))], "label": labels}


@pytest.mark.parametrize(
    ("task", "settings", "expected"),
    [
        ("cola", {}, (("sentence",), "label")),
        # A person names texts; the label column of a known task is known.
        ("cola", {"text_columns": ("a",), "label_column": "b"}, (("a",), "label")),
        ("owner/set", {}, ((), "")),
        ("owner/set", {"label_column": "b"}, ((), "b")),
        ("owner/set", {"text_columns": ("a", "b")}, (("a", "b"), "")),
    ],
)
def test_columns_are_those_that_the_task_or_a_person_names(task, settings, expected):
    columns = ask_columns(get_task(task), DataSettings(task=task, **settings))
    assert columns == Columns(*expected)


@pytest.mark.parametrize(
    ("task", "published", "expected"),
    [
        ("owner/set", ["test", "train", "dev"], "test train validation"),
        ("owner/set", ["train", "valid", "unsupervised"], "train validation"),
        ("owner/set", ["train", "validation_mismatched"], "train"),
        # GLUE's labels of test are not published.
        ("cola", ["train", "validation", "test"], "train validation"),
        (
            "mnli",
            ["train", "validation_matched", "validation_mismatched", "test_matched"],
            "train validation validation_mismatched",
        ),
    ],
)
def test_splits_that_are_used_have_one_name_each(task, published, expected):
    found = find_splits(get_task(task), published)
    assert [name for _, name in found] == expected.split()
    assert [given for given, _ in found] == [n for n in published if n in dict(found)]


@given(st.one_of(st.text(), st.integers(), st.booleans()))
def test_a_label_names_its_class_as_it_is_written(value):
    name = name_label(value)
    assert name == (str(value) if str(value).strip() else "")
    assert name_label(name) == name


@pytest.mark.parametrize("value", [None, 0.5, 1.0, [1], {}, np.float32(1), b"a", "\t"])
def test_what_is_no_text_and_no_whole_number_names_no_class(value):
    assert name_label(value) == ""


@given(st.lists(LABELS, max_size=12), st.booleans())
def test_rows_without_a_label_are_left_out_and_counted(labels, training_has_minus_one):
    """-1 is no label where all are; among others it is a class."""
    table = make(make_rows(labels), training_has_minus_one=training_has_minus_one)
    all_minus_one = all(label == -1 for label in labels)
    left_out = {None} if training_has_minus_one or not all_minus_one else {None, -1}
    kept = [i for i, label in enumerate(labels) if label not in left_out]
    assert table.labels == [str(labels[i]) for i in kept]
    assert table.texts == [f"row {i}" for i in kept]
    assert table.positions == table.row_ids == kept
    missing = len(labels) - len(kept)
    assert table.notes == (
        (
            f"set (test): {missing} of {len(labels)} rows have no label (none or -1)"
            " and are left out",
        )
        if missing
        else ()
    )


@given(st.lists(LABELS, max_size=12), st.booleans())
def test_of_classes_with_names_minus_one_is_none(labels, training_has_minus_one):
    names = ("z", "a", "m")
    table = make(
        make_rows(labels), names, training_has_minus_one=training_has_minus_one
    )
    kept = [i for i, label in enumerate(labels) if label not in (None, -1)]
    assert table.row_ids == kept
    # By position in the published order, not the sorted one.
    assert table.labels == [names[labels[i]] for i in kept]


def test_labels_that_are_names_already_stay():
    assert make(make_rows(["a", "z"]), ("z", "a")).labels == ["a", "z"]


def test_pairs_are_two_columns_of_the_same_rows():
    values = {
        "text": ["p", None, "r"],
        "other": ["q", "s", "t"],
        "label": [1, 0, None],
    }
    table = make(values, texts=("other", "text"))
    assert (table.texts, table.pairs) == (["q", "s"], ["p", ""])
    assert table.columns.texts == ("other", "text")
    assert (table.where, table.unit, table.locate(1)) == (
        *("set (test)", "row"),
        "set (test) row 1",
    )
    assert make(make_rows([0])).pairs is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        # The first row is left out: positions are those of the published split.
        (
            {"text": [1, 2], "label": [None, 0]},
            r"^set \(test\) row 1 has a int as 'text', expected a string: .*"
            r"--config\.data\.text_columns$",
        ),
        (
            make_rows([None, 0, 0.5]),
            r"^set \(test\) row 2: label '0.5' of column 'label' is a float, expected"
            r" an integer or a string: .*--config\.data\.label_column$",
        ),
        (make_rows([[0, 1]]), r"label '\[0, 1\]' of column 'label' is a list"),
        (make_rows([np.arange(3)]), r"label '\[0 1 2\]' .* is a ndarray"),
        (make_rows(["a", " "]), r"row 1: label ' ' of column 'label' is a str"),
    ],
)
def test_a_value_of_another_type_is_one_line_with_its_row(values, message):
    with pytest.raises(ValueError, match=message) as error:
        make(values)
    assert "\n" not in str(error.value)


def test_a_column_is_read_once():
    """Each access of a published column may read it anew from the disk."""

    class Reads(dict):
        count = 0

        def __getitem__(self, name: str) -> Any:
            Reads.count += 1
            return super().__getitem__(name)

    make(Reads(make_rows([0, 1] * 50)))
    assert Reads.count < 10  # The checks of types in tests look at some, too.
