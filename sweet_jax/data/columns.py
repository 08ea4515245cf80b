"""Names of published splits, and tables made from the columns of a split."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import ColumnFlags, Columns
from sweet_jax.data.rows import quote
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings

# Published name of a split -> our name; other splits are not read.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "validation_matched": "validation",
    "validation_mismatched": "validation_mismatched",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def ask_columns(task: Task, settings: DataSettings) -> Columns:
    """Returns the columns named by the settings or the task; empty if by neither."""
    return Columns(
        settings.text_columns or task.text_columns,
        task.label_column or settings.label_column,
    )


def find_splits(task: Task, published: Iterable[Any]) -> list[tuple[str, str]]:
    """Returns (published name, our name) of the splits that are used."""
    used = {"train", "validation", task.test_split, *task.extra_test_splits}
    return [
        (str(name), SPLIT_NAMES[str(name)])
        for name in published
        if str(name) in SPLIT_NAMES and SPLIT_NAMES[str(name)] in used
    ]


def name_label(value: Any) -> str:
    """Returns the class name of a label; empty if the value is not a label.

    Strings are kept; integers and booleans become strings: the label 1 in a .jsonl is
    the label `1` in a .csv, and true is `True`.
    """
    if isinstance(value, str):
        return value if value.strip() else ""
    return str(value) if isinstance(value, int) else ""


def make_table(
    where: str,
    values: Mapping[str, Sequence[Any]],
    columns: Columns,
    names: Sequence[str],
    flags: ColumnFlags,
    training_has_minus_one: bool = False,
) -> Table:
    """Returns the labelled rows of a split given by columns.

    Rows without a label are left out, and a note of the table counts them. A label is
    missing if it is None; -1 also means missing if classes have published names, or if
    all labels of the split are -1 and the training split has no class -1.

    Args:
        where: data set and split, for messages.
        values: column -> its values.
        columns: the columns to read.
        names: class names by index, if published.
        flags: the flags or arguments that name columns, for messages.
        training_has_minus_one: whether -1 is a class of the training split.

    Raises:
        ValueError: a column holds another type.
    """
    labels = list(values[columns.label])
    # Type first: a label may be a list or an array, which is refused below.
    is_minus_one = [isinstance(label, int) and label == -1 for label in labels]
    if not names and (training_has_minus_one or not all(is_minus_one)):
        is_minus_one = [False] * len(labels)
    labelled = [
        i for i, label in enumerate(labels) if label is not None and not is_minus_one[i]
    ]
    notes = []
    if missing := len(labels) - len(labelled):
        notes.append(
            f"{where}: {missing:,} of {len(labels):,} rows have no label (none or -1)"
            " and are left out"
        )
    texts = []
    for column in columns.texts:
        read = list(values[column])  # Once: each access reads the column again.
        texts.append(["" if read[i] is None else read[i] for i in labelled])
        for i, value in zip(labelled, texts[-1], strict=True):
            if not isinstance(value, str):
                raise ValueError(
                    f"{where} row {i} has a {type(value).__name__} as {column!r},"
                    " expected a string: convert the column to strings, or name another"
                    f" in {flags.text}"
                )
    classes = []
    for i in labelled:
        label = labels[i]
        if names and isinstance(label, int):
            classes.append(names[label])
        elif name := name_label(label):
            classes.append(name)
        else:
            raise ValueError(
                f"{where} row {i}: label {quote(str(label))} of column"
                f" {quote(columns.label)} is a {type(label).__name__}, expected an"
                f" integer or a string: convert the column, or name another in"
                f" {flags.label}"
            )
    return Table(
        where=where,
        unit="row",
        positions=labelled,
        row_ids=labelled,
        texts=texts[0],
        pairs=texts[1] if len(texts) == 2 else None,
        labels=classes,
        columns=columns,
        notes=tuple(notes),
    )
