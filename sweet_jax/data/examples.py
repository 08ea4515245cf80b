"""Labelled rows: as read, as published, and the checks between the two."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Int, Int32, Int64

from sweet_jax.data.tasks import Task


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
    """

    task: Task
    splits: dict[str, Examples]
    label_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A split as read: strings, and where each row stands.

    Attributes:
        where: file name, or data set and split, for messages.
        unit: what `positions` count, "line" or "row".
        positions: for messages, of each row.
        row_ids: position in the published split, from 0.
    """

    where: str
    unit: str
    positions: Sequence[int]
    row_ids: Sequence[int]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[str]


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
    tables = {split: table for split, table in tables.items() if len(table.labels)}
    main = "all" if "all" in tables else "train"
    if main not in tables:
        found = ", ".join(tables) or "no labelled split"
        raise ValueError(f"data.task={task.name} has no labelled train split: {found}")
    present = set(tables[main].labels)
    if len(present) < 2:
        raise ValueError(
            f"{tables[main].where} has rows of the one class {present.pop()!r} only:"
            " a classifier needs two or more"
        )
    names = known_names or _sort_names(present)
    splits = {}
    for split, table in tables.items():
        if not allow_empty_text:
            _check_texts(table)
        splits[split] = Examples(
            texts=tuple(table.texts),
            pairs=None if table.pairs is None else tuple(table.pairs),
            labels=_encode_labels(table, names),
            row_ids=np.asarray(table.row_ids, np.int64),
        )
    return RawTask(task=task, splits=splits, label_names=names)


def _sort_names(labels: Collection[str]) -> tuple[str, ...]:
    # "01" and "1" are different strings: only canonical decimals count as integers.
    if all(re.fullmatch(r"0|-?[1-9][0-9]*", label) for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _check_texts(table: Table) -> None:
    for texts in filter(None, (table.texts, table.pairs)):
        for position, text in zip(table.positions, texts, strict=True):
            if not text.strip():
                raise ValueError(
                    f"{table.where} {table.unit} {position} has an empty text: fill or"
                    " drop it, or set data.allow_empty_text=True"
                )


def _encode_labels(table: Table, names: tuple[str, ...]) -> Int32[np.ndarray, " N"]:
    index_of_name = {name: i for i, name in enumerate(names)}
    for position, label in zip(table.positions, table.labels, strict=True):
        if label not in index_of_name:
            raise ValueError(
                f"{table.where} {table.unit} {position} has the label {label!r}, which"
                f" the training rows lack; they have {', '.join(names)[:200]}"
            )
    return np.array([index_of_name[label] for label in table.labels], np.int32)
