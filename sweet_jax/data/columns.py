"""Columns and splits of published data sets, by name: from columns to a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from sweet_jax.data.examples import Table
from sweet_jax.data.tasks import Task
from sweet_jax.settings import DataSettings

# Text columns by their usual names, pairs first: `question` + `sentence` (QNLI) would
# otherwise be found as `sentence`.
_USUAL_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence",),
    ("text",),
    ("review",),
    ("content",),
    ("question",),
)
# How published splits are called here; others are not read.
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "validation_matched": "validation",
    "validation_mismatched": "validation_mismatched",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def find_text_columns(columns: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns the one or two text columns that have usual names.

    Args:
        columns: the names there are.
        where: file name, or data set and split, for the message.

    Raises:
        ValueError: none has a usual name.
    """
    for usual in _USUAL_COLUMNS:
        if set(usual) <= set(columns):
            return usual
    raise ValueError(
        f"{where} has no text column of a usual name; its columns are"
        f" {', '.join(columns)}: name one or two in data.text_columns"
    )


def check_columns(
    columns: Sequence[str],
    text_columns: Sequence[str],
    label_column: str,
    where: str,
) -> None:
    """Raises ValueError unless all columns to be read are among `columns`."""
    wanted = [("data.text_columns", column) for column in text_columns]
    for field, column in [*wanted, ("data.label_column", label_column)]:
        if column not in columns:
            raise ValueError(
                f"{where} has no column {column!r}; its columns are"
                f" {', '.join(columns)}: set {field}"
            )


def find_splits(task: Task, published: Iterable[Any]) -> list[tuple[str, str]]:
    """Returns the published splits that are used, with their names here."""
    used = {"train", "validation", task.test_split, *task.extra_test_splits}
    return [
        (str(name), _SPLIT_NAMES[str(name)])
        for name in published
        if str(name) in _SPLIT_NAMES and _SPLIT_NAMES[str(name)] in used
    ]


def make_table(
    task: Task,
    settings: DataSettings,
    split: str,
    columns: Mapping[str, Sequence[Any]],
    names: Sequence[str],
) -> Table:
    """Returns the labelled rows of a split given by columns.

    None as a label means "not published", and so does -1 where classes have names or
    the whole split holds nothing else; such rows are left out.

    Args:
        task: its columns, where it names them.
        settings: its columns, where a person names them.
        split: as published, for messages.
        columns: values by column.
        names: of the classes, by index, where they are published.

    Raises:
        ValueError: a column is missing or holds another type.
    """
    where = f"{task.name} ({split})"
    text_columns = settings.text_columns or task.text_columns
    text_columns = text_columns or find_text_columns(list(columns), where)
    label_column = task.label_column or settings.label_column
    check_columns(list(columns), text_columns, label_column, where)
    labels = list(columns[label_column])
    unlabelled = {None, -1} if names or set(labels) == {-1} else {None}
    labelled = [i for i, label in enumerate(labels) if label not in unlabelled]
    if 0 < len(labelled) < len(labels):
        missing = len(labels) - len(labelled)
        logging.warning("%s: %d rows without a label are left out", where, missing)
    texts = []
    for column in text_columns:
        values = list(columns[column])  # once: each access of a column reads it anew
        texts.append(["" if values[i] is None else values[i] for i in labelled])
        _check_types(texts[-1], (str,), "strings", f"{where}: column {column!r}")
    labels = [labels[i] for i in labelled]
    _check_types(labels, (int, str), "classes", f"{where}: column {label_column!r}")
    return Table(
        where=where,
        unit="row",
        positions=labelled,
        row_ids=labelled,
        texts=texts[0],
        pairs=texts[1] if len(texts) == 2 else None,
        labels=[
            names[label] if names and isinstance(label, int) else str(label)
            for label in labels
        ],
    )


def _check_types(
    values: Iterable[Any], allowed: tuple[type, ...], expected: str, where: str
) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise ValueError(
                f"{where} holds a {type(value).__name__}, expected {expected}: set"
                " data.text_columns and data.label_column to others"
            )
