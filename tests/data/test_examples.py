"""Labelled rows: strings in, arrays out, and every odd row named by its place."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.data.examples import Examples, RawTask, Table, make_examples, make_task
from sweet_jax.data.find_columns import NO_COLUMNS, Columns
from sweet_jax.data.tasks import get_task

TASK = get_task("file")


def make_table(labels: list[str], where: str = "train.csv", **changes: Any) -> Table:
    """Returns rows that stand on every second line from the third on."""
    count = len(labels)
    table = Table(
        where=where,
        unit="line",
        positions=range(3, 3 + 2 * count, 2),
        row_ids=range(0, 2 * count, 2),
        texts=[f"a film of {i} acts" for i in range(count)],
        pairs=None,
        labels=labels,
    )
    return dataclasses.replace(table, **changes)


def load(known_names: tuple[str, ...] = (), **tables: Table) -> RawTask:
    return make_task(TASK, tables, known_names, allow_empty_text=False)


@given(st.lists(st.integers(0, 4), max_size=8), st.booleans())
def test_a_selection_keeps_rows_together_in_its_order(indices, has_pairs):
    examples = Examples(
        texts=tuple("abcde"),
        pairs=tuple("ABCDE") if has_pairs else None,
        labels=np.arange(5, dtype=np.int32),
        row_ids=np.arange(10, 15),
    )
    chosen = examples.select(np.array(indices, int))
    assert len(chosen) == len(indices)
    assert chosen.texts == tuple("abcde"[i] for i in indices)
    assert chosen.pairs == (tuple("ABCDE"[i] for i in indices) if has_pairs else None)
    assert chosen.labels.tolist() == indices
    assert chosen.row_ids.tolist() == [10 + i for i in indices]


def test_a_row_is_found_by_its_place_and_by_its_id():
    table = make_table(["a", "b", "a"])
    assert [table.locate(i) for i in range(3)] == [
        f"train.csv line {n}" for n in (3, 5, 7)
    ]
    assert [table.locate_row_id(n) for n in (0, 2, 4)] == [
        table.locate(i) for i in range(3)
    ]
    shards = dataclasses.replace(table, files=["1.csv", "2.csv", "2.csv"])
    assert shards.locate_row_id(4) == "2.csv line 7"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1", "0"], ("-1", "0", "9", "10")),
        # Of other strings, 01 is not 1.
        (["10", "9", "01"], ("01", "10", "9")),
        (["b", "a", "B"], ("B", "a", "b")),
        (["1", "-0", "0"], ("-0", "0", "1")),
        (["\u0661", "1", "2"], ("1", "2", "\u0661")),
    ],
)
def test_classes_without_names_are_ordered_by_what_they_are(labels, names):
    raw = load(train=make_table(labels))
    assert raw.label_names == names
    assert [names[i] for i in raw.splits["train"].labels] == labels


def test_known_names_keep_their_order_and_may_be_more():
    raw = load(("z", "a", "m"), train=make_table(["a", "z"]))
    assert raw.label_names == ("z", "a", "m")
    assert raw.splits["train"].labels.tolist() == [1, 0]


def test_rows_of_all_splits_are_numbered_by_the_classes_of_training():
    test = make_table(["b", "b"], "test.csv", pairs=None)
    raw = load(train=make_table(["b", "a", "c"]), test=test)
    assert raw.splits["test"].labels.tolist() == [1, 1]
    assert raw.splits["test"].labels.dtype == np.int32
    assert raw.splits["train"].row_ids.tolist() == [0, 2, 4]
    assert raw.tables.keys() == raw.splits.keys()


@pytest.mark.parametrize("main", ["train", "all"])
def test_columns_are_those_of_the_training_rows(main):
    columns = Columns(("said",), "kind", True)
    table = make_table(["a", "b"], columns=columns)
    raw = load(**{"test": make_table(["a"]), main: table})
    assert raw.columns == columns
    # They were found by their content: whoever reads the results is told.
    [note] = [note for note in raw.notes if "chosen by content" in note]
    assert note.startswith("train.csv has no columns with usual names")
    assert "(texts in 'said', labels in 'kind')" in note
    assert dataclasses.replace(raw, tables={}).columns == NO_COLUMNS


def test_a_split_without_rows_is_none_and_its_notes_stay():
    empty = make_table([], "test.csv", notes=("test.csv: 3 rows have no label",))
    raw = load(train=make_table(["a", "b"], notes=("train.csv: one",)), test=empty)
    assert raw.splits.keys() == {"train"}
    assert raw.notes[:2] == ("train.csv: one", "test.csv: 3 rows have no label")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "data.task=file has no labelled train split: no labelled split"),
        ({"test": make_table(["a"])}, "no labelled train split: test"),
        (
            {"train": make_table([]), "test": make_table(["a"])},
            "no labelled train split: test",
        ),
        (
            {"train": make_table(["a", "a"])},
            "train.csv has rows of only one class, 'a': a classifier needs two",
        ),
        (
            {"train": make_table(["a", "b"]), "test": make_table(["c"], "test.csv")},
            "test.csv line 3 has the label 'c', which the training rows lack; they have"
            " a, b",
        ),
        # Most often it is one of them, written in another way.
        (
            {"train": make_table(["Yes", "no"]), "test": make_table(["no", " yes"])},
            "line 5 has the label ' yes', which the training rows lack; they have Yes,"
            " no: is it 'Yes'?",
        ),
        (
            {"train": make_table(["1", "0"]), "test": make_table(["1.0"])},
            "they have 0, 1: is it '1'?",
        ),
        (
            {"train": make_table(["a", "b"], texts=["x", "\t"])},
            "train.csv line 5 has an empty text: fill or drop it, or set"
            " --config.data.allow_empty_text=True",
        ),
        (
            {"train": make_table(["a", "b"], pairs=["", "x"])},
            "train.csv line 3 has an empty text",
        ),
    ],
)
def test_rows_that_train_nothing_are_one_line(tables, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load(**tables)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_texts_are_taken_where_they_are_allowed():
    table = make_table(["a", "b"], texts=["", "x"], pairs=["y", " "])
    examples = make_examples(table, ("a", "b"), allow_empty_text=True)
    assert (examples.texts, examples.pairs) == (("", "x"), ("y", " "))
    with pytest.raises(ValueError, match="empty text"):
        make_examples(table, ("a", "b"), allow_empty_text=False)


def test_a_long_list_of_classes_stays_short():
    names = [f"class {i:04}\x1b" for i in range(1000)]
    with pytest.raises(ValueError, match="lack; they have class 0000") as error:
        load(
            tuple(names),
            train=make_table(names),
            test=make_table(["x" * 10_000], "test.csv"),
        )
    assert len(str(error.value)) < 600
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([f"id{i}" for i in range(30)], "has a different value in each of the 30 rows"),
        ([str(i) for i in range(30)], "they name rows, not classes"),
        (
            [f"{i / 7:.3f}" for i in range(30)],
            r"30 different numbers \('0.000', .*regr",
        ),
        (["0.5", "1.5", "2.25", "1e-3"], "4 different numbers .* regression is not"),
        ([f"{i},5" for i in range(9)], "9 different numbers .* regression is not"),
        ([*(f"-{i}.5" for i in range(9)), "nan"], "regression is not offered"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, message):
    table = make_table(labels, columns=Columns(("text",), "label"))
    for tables in ({"train": table}, {"train": table, "test": table}, {"all": table}):
        with pytest.raises(ValueError, match=message) as raised:
            load(**tables)
        assert str(raised.value).startswith("train.csv: the label column 'label' ")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "labels",
    [
        [f"{i % 10 / 2}" for i in range(30)],
        [f"v{i}.{i}" for i in range(15)],
        [str(i) for i in range(15)],
        [str(i // 2) for i in range(60)],
    ],
)
def test_labels_that_may_be_classes_are_taken(labels):
    """Half stars, versions, the numbers of few classes, and many of two rows each."""
    assert set(load(train=make_table(labels)).label_names) == set(labels)


def test_names_that_are_known_are_classes_whatever_they_are():
    names = tuple(f"id{i}" for i in range(30))
    assert load(names, train=make_table([*names])).label_names == names
