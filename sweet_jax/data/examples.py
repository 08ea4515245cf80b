"""Labelled rows: as read, as published, and the checks between the two."""

import bisect
import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Int, Int32, Int64

from sweet_jax.data.notes import describe_labels, describe_texts, fold_label
from sweet_jax.data.rows import quote
from sweet_jax.data.tasks import Task
from sweet_jax.system.files import show


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
        splits: rows by split: `all` where none are published, otherwise `train` and
            those there are of `validation`, `test`, `validation_mismatched`.
        label_names: names by class index.
        tables: where the rows of `splits` stand, for notes; {} where that is unknown.
        notes: what a reader of the results must know about the rows as published.
    """

    task: Task
    splits: dict[str, Examples]
    label_names: tuple[str, ...]
    tables: "dict[str, Table]" = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A split as read: strings, and where each row stands.

    Attributes:
        where: file name, or data set and split, for messages.
        unit: what `positions` count, "line" or "row".
        positions: for messages, of each row.
        row_ids: position in the published split, from 0, rising.
        files: names by row, where a split is made of several files.
        notes: what a reader of the results must know about the reading.
    """

    where: str
    unit: str
    positions: Sequence[int]
    row_ids: Sequence[int]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[str]
    files: Sequence[str] = ()
    notes: tuple[str, ...] = ()

    def locate(self, i: int) -> str:
        """Returns where row i stands, such as `train.csv line 7`."""
        where = self.files[i] if self.files else self.where
        return f"{where} {self.unit} {self.positions[i]}"

    def locate_row_id(self, row_id: int) -> str:
        """Returns where the row with a `row_id` stands."""
        return self.locate(bisect.bisect_left(self.row_ids, row_id))


def make_task(
    task: Task,
    tables: Mapping[str, Table],
    known_names: tuple[str, ...],
    allow_empty_text: bool,
) -> RawTask:
    """Returns the arrays of a task whose rows passed the checks.

    Args:
        task: the task.
        tables: rows by split; a split without any (labelled) row is left out.
        known_names: label names as published; (): found in the training rows, integers
            in their order, strings sorted.
        allow_empty_text: accept rows without text.

    Raises:
        ValueError: no training rows, an empty text, a label that training lacks, or
            one class only.
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
            f"{tables[main].where} has rows of the one class {quote(present.pop())}"
            " only: a classifier needs two or more"
        )
    names = known_names or _sort_names(present)
    splits = {
        split: make_examples(table, names, allow_empty_text)
        for split, table in tables.items()
    }
    for table in tables.values():
        notes += describe_texts(table.texts, table.pairs, table.locate)
    notes += describe_labels(tables[main].labels, tables[main].locate)
    return RawTask(task, splits, names, dict(tables), tuple(notes))


def make_examples(
    table: Table, names: Sequence[str], allow_empty_text: bool
) -> Examples:
    """Returns the arrays of a split whose rows passed the checks.

    Args:
        table: its rows.
        names: label names by class index.
        allow_empty_text: accept rows without text.

    Raises:
        ValueError: an empty text, or a label that is none of `names`.
    """
    if not allow_empty_text:
        _check_texts(table)
    return Examples(
        texts=tuple(table.texts),
        pairs=None if table.pairs is None else tuple(table.pairs),
        labels=_encode_labels(table, names),
        row_ids=np.asarray(table.row_ids, np.int64),
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
            # Most often it is one of them, written in another way.
            alike = [name for name in names if fold_label(name) == fold_label(label)]
            hint = f": is it {quote(alike[0])}?" if alike else ""
            raise ValueError(
                f"{table.locate(i)} has the label {quote(label)}, which the training"
                f" rows lack; they have {show(', '.join(names)[:200])}{hint}"
            )
    return np.array([index_of_name[label] for label in table.labels], np.int32)
