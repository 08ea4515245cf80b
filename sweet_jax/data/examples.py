"""Labelled rows: tables as read, examples as arrays, and the checks between them."""

import bisect
import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64

from sweet_jax.data.find_columns import NO_COLUMNS, Columns, describe_columns
from sweet_jax.data.notes import (
    describe_labels,
    describe_texts,
    fold_label,
    stands_for_missing,
)
from sweet_jax.data.rows import quote
from sweet_jax.data.tasks import Task
from sweet_jax.system.files import show

# More labels than this that all differ are not classes.
_MANY_CLASSES = 20
_NUMBER = re.compile(r"\s*[-+]?[0-9]*[.,]?[0-9]+([eE][-+]?[0-9]+)?\s*")
_FRACTION = re.compile("[.,][0-9]*[1-9]")


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Labelled texts, or pairs of texts.

    Attributes:
        texts: the (first) text of each row.
        pairs: the second text of each row; None for tasks of single texts.
        labels: class indices.
        row_ids: position of each row in its published split, from 0.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: Int32[np.ndarray, " N"]
    row_ids: Int64[np.ndarray, " N"]

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.labels)
        assert self.pairs is None or len(self.pairs) == len(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Int[np.ndarray, " R"]) -> "Examples":
        """Returns the rows at `indices`, in that order."""
        return Examples(
            texts=tuple(self.texts[i] for i in indices),
            pairs=None if self.pairs is None else tuple(self.pairs[i] for i in indices),
            labels=self.labels[indices],
            row_ids=self.row_ids[indices],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class RawTask:
    """A task's labelled rows as published.

    Attributes:
        task: name, metric and which split is tested on.
        splits: split -> its rows: only `all` if no splits are published, otherwise
            `train` and any of `validation`, `test`, `validation_mismatched`.
        label_names: names by class index.
        tables: split -> its table, to locate rows in notes; {} if unknown.
        notes: what a reader of the results must know about the rows.
    """

    task: Task
    splits: dict[str, Examples]
    label_names: tuple[str, ...]
    tables: "dict[str, Table]" = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        """The columns that the training rows were read from."""
        table = self.tables.get("all") or self.tables.get("train")
        return NO_COLUMNS if table is None else table.columns


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A split as read: strings, and the position of each row.

    Attributes:
        where: file name, or data set and split, for messages.
        unit: the unit of `positions`: "line", "row", or "index" of a DataFrame.
        positions: the position of each row, for messages.
        row_ids: position of each row in the published split, increasing from 0.
        texts: the (first) text of each row.
        pairs: the second text of each row; None for tasks of single texts.
        labels: the class name of each row.
        files: the file of each row, if the split has several files.
        columns: the columns of texts and labels; empty if they have no names.
        notes: what a reader of the results must know about the reading.
    """

    where: str
    unit: str
    positions: Sequence[Any]
    row_ids: Sequence[int]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[str]
    files: Sequence[str] = ()
    columns: Columns = NO_COLUMNS
    notes: tuple[str, ...] = ()

    def locate(self, i: int) -> str:
        """Returns the position of row i, such as `train.csv line 7`."""
        where = self.files[i] if self.files else self.where
        return f"{where} {self.unit} {self.positions[i]}"

    def locate_row_id(self, row_id: int) -> str:
        """Returns the position of the row with this `row_id`."""
        return self.locate(bisect.bisect_left(self.row_ids, row_id))


def make_task(
    task: Task,
    tables: Mapping[str, Table],
    known_names: tuple[str, ...],
    allow_empty_text: bool,
) -> RawTask:
    """Checks the rows of a task and returns them as arrays.

    Args:
        task: the task.
        tables: split -> its rows; splits without labelled rows are left out.
        known_names: published label names; (): taken from the training rows, sorted as
            integers if all are integers, otherwise as strings.
        allow_empty_text: accept rows without text.

    Raises:
        ValueError: there are no training rows, they have one class only, a text is
            empty, or a label does not occur in training.
    """
    notes = [note for table in tables.values() for note in table.notes]
    tables = {split: table for split, table in tables.items() if len(table.labels)}
    main = "all" if "all" in tables else "train"
    if main not in tables:
        found = ", ".join(tables) or "no labelled split"
        raise ValueError(f"data.task={task.name} has no labelled train split: {found}")
    present = set(tables[main].labels)
    if len(present) < 2:
        raise ValueError(
            f"{tables[main].where} has rows of only one class, {quote(present.pop())}:"
            " a classifier needs two or more"
        )
    if not known_names:
        _check_classes(tables[main])
    names = known_names or _sort_names(present)
    splits = {
        split: make_examples(table, names, allow_empty_text)
        for split, table in tables.items()
    }
    for table in tables.values():
        notes += describe_texts(table.texts, table.pairs, table.locate)
    notes += describe_labels(tables[main].labels, tables[main].locate)
    if (columns := tables[main].columns).by_content:
        notes.append(
            f"{tables[main].where} has no columns with usual names for texts and"
            f" labels: they were chosen by content ({describe_columns(columns)})"
        )
    return RawTask(task, splits, names, dict(tables), tuple(notes))


def make_examples(
    table: Table, names: Sequence[str], allow_empty_text: bool
) -> Examples:
    """Checks the rows of a split and returns them as arrays.

    Args:
        table: the rows.
        names: label names by class index.
        allow_empty_text: accept rows without text.

    Raises:
        ValueError: a text is empty, or a label is not in `names`.
    """
    if not allow_empty_text:
        _check_texts(table)
    return Examples(
        texts=tuple(table.texts),
        pairs=None if table.pairs is None else tuple(table.pairs),
        labels=_encode_labels(table, names),
        row_ids=np.asarray(table.row_ids, np.int64),
    )


def _check_classes(table: Table) -> None:
    """Raises ValueError if the labels are regression targets or identify the rows."""
    labels, distinct = table.labels, set(table.labels)
    column = (
        f"the label column {quote(table.columns.label)}"
        if table.columns.label
        else "its labels"
    )
    many = len(distinct) > _MANY_CLASSES
    numbers = [label for label in distinct if not stands_for_missing(label)]
    has_fraction = all(map(_NUMBER.fullmatch, numbers)) and any(
        map(_FRACTION.search, numbers)
    )
    if has_fraction and (many or 2 * len(distinct) > len(labels)):
        first = ", ".join(map(quote, labels[:3]))
        raise ValueError(
            f"{table.where}: {column} holds {len(distinct):,} different numbers"
            f" ({first}, ...): regression is not offered; name a column of classes, or"
            " make classes of the numbers"
        )
    if many and len(distinct) == len(labels):
        raise ValueError(
            f"{table.where}: {column} has a different value in each of the"
            f" {len(labels):,} rows ({quote(labels[0])}, {quote(labels[1])}, ...): they"
            " name rows, not classes; name a column whose values repeat"
        )


def _sort_names(labels: Collection[str]) -> tuple[str, ...]:
    # "01" and "1" are different strings: only canonical decimals count as integers.
    if all(re.fullmatch(r"0|-?[1-9][0-9]*", label) for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _check_texts(table: Table) -> None:
    for texts in filter(None, (table.texts, table.pairs)):
        for i, text in enumerate(texts):
            if not text.strip():
                raise ValueError(
                    f"{table.locate(i)} has an empty text: fill or drop it, or set"
                    " --config.data.allow_empty_text=True"
                )


def _encode_labels(table: Table, names: Sequence[str]) -> Int32[np.ndarray, " N"]:
    index_of_name = {name: i for i, name in enumerate(names)}
    for i, label in enumerate(table.labels):
        if label not in index_of_name:
            # Often it is one of them in another spelling.
            alike = [name for name in names if fold_label(name) == fold_label(label)]
            hint = f": is it {quote(alike[0])}?" if alike else ""
            raise ValueError(
                f"{table.locate(i)} has the label {quote(label)}, which the training"
                f" rows lack; they have {show(', '.join(names)[:200])}{hint}"
            )
    return np.array([index_of_name[label] for label in table.labels], np.int32)
