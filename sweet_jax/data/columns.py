"""Columns and splits of data sets, by name: from columns to a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sweet_jax.data.examples import Table
from sweet_jax.data.rows import quote
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings


class ColumnFlags(NamedTuple):
    """What a person types to name columns, for messages."""

    text: str = "--config.data.text_columns"
    label: str = "--config.data.label_column"


MAIN_FLAGS = ColumnFlags()
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
# Names that are never taken unasked, but shown as what to type.
_LIKELY_TEXTS = ("body", "message", "comment", "tweet", "title", "document", "input")
_LIKELY_LABELS = ("labels", "class", "category", "target", "sentiment", "stars", "y")
# What separates columns in files that are called .csv or .tsv all the same.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
# Of columns in a message.
_MOST_NAMES = 20
_LONGEST_NAME = 100
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


def find_text_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Returns the one or two text columns that have usual names; () for none."""
    return next((usual for usual in _USUAL_COLUMNS if set(usual) <= set(columns)), ())


def choose_columns(
    columns: Sequence[str],
    text_columns: tuple[str, ...],
    label_column: str,
    where: str,
    flags: ColumnFlags = MAIN_FLAGS,
) -> tuple[str, ...]:
    """Returns the one or two text columns to read.

    Args:
        columns: the names there are.
        text_columns: as a person or a task names them; (): found by usual names.
        label_column: must be there, too; empty: no labels are read.
        where: file name, or data set and split, for messages.
        flags: what a person types, for messages.

    Raises:
        ValueError: columns are missing (all are named, with what to type), or a column
            is to be read as two things.
    """
    found = text_columns or find_text_columns(columns)
    problems, remedies = [], []
    if not found:
        problems.append("no text column of a usual name")
    problems += [f"no column {quote(name)}" for name in found if name not in columns]
    if problems:
        likely = [name for name in _LIKELY_TEXTS if name in columns]
        remedies.append(f"{flags.text}={likely[0] if likely else 'NAME'}")
    if label_column and label_column not in columns:
        problems.append(f"no column {quote(label_column)}")
        likely = [name for name in _LIKELY_LABELS if name in columns]
        rest = [name for name in columns if name and name not in found]
        # A name that nobody would type is more likely a damaged file's.
        likely += rest if len(rest) == 1 and len(rest[0]) <= _LONGEST_NAME else []
        remedies.append(f"{flags.label}={likely[0] if likely else 'NAME'}")
    if problems:
        raise ValueError(
            f"{where} has {' and '.join(problems)}; {describe_columns(columns)}: set"
            f" {' and '.join(remedies)}{_explain(columns)}"
        )
    if label_column in found:
        raise ValueError(
            f"{where}: {label_column!r} is the column of labels, and the model would"
            f" read it as text: name other columns in {flags.text}"
        )
    if len(set(found)) < len(found):
        raise ValueError(
            f"{where}: {flags.text} names {found[0]!r} twice: name it once"
        )
    return found


def describe_columns(columns: Sequence[str]) -> str:
    """Returns the names of the columns in quotes, which show blanks."""
    names = ", ".join(map(quote, columns[:_MOST_NAMES]))
    more = len(columns) - _MOST_NAMES
    return f"its columns are {names}" + (f" and {more:,} others" if more > 0 else "")


def _explain(columns: Sequence[str]) -> str:
    """Returns a likely reason why columns are not found, with what to do about it."""
    for character, name in _SEPARATORS.items():
        if len(columns) == 1 and character in columns[0]:
            return (
                f" (the file seems to be separated by {name}: a .csv is separated by"
                " commas, a .tsv by tabs)"
            )
    if any(len(c) > 1 and c[0] == c[-1] == '"' for c in columns):
        return " (names in quotes: a .tsv is read without quotes, save it as .csv)"
    if not any(column.isidentifier() for column in columns):
        return " (the first line of a table is its header)"
    if any(column != column.strip() for column in columns):
        return " (names with blanks at their ends: take them out of the header)"
    return ""


def find_splits(task: Task, published: Iterable[Any]) -> list[tuple[str, str]]:
    """Returns the published splits that are used, with their names here."""
    used = {"train", "validation", task.test_split, *task.extra_test_splits}
    return [
        (str(name), _SPLIT_NAMES[str(name)])
        for name in published
        if str(name) in _SPLIT_NAMES and _SPLIT_NAMES[str(name)] in used
    ]


def name_label(value: Any) -> str:
    """Returns the class that a label names; empty for a value that names none.

    Text stays as it is, whole numbers and booleans are written out: the label 1 of a
    .jsonl is the label `1` of a .csv, and true is `True`.
    """
    if isinstance(value, str):
        return value if value.strip() else ""
    return str(value) if isinstance(value, int) else ""


def make_table(
    task: Task,
    settings: DataSettings,
    split: str,
    columns: Mapping[str, Sequence[Any]],
    names: Sequence[str],
    flags: ColumnFlags,
    training_has_minus_one: bool = False,
) -> Table:
    """Returns the labelled rows of a split given by columns.

    None as a label means "not published", and so does -1 where classes have names or
    the whole split holds nothing else and training has no such class; these rows are
    left out, and a note of the table counts them.

    Args:
        task: its columns, where it names them.
        settings: its columns, where a person names them.
        split: as published, for messages.
        columns: values by column.
        names: of the classes, by index, where they are published.
        flags: what a person types to name columns, for messages.
        training_has_minus_one: -1 is a class of the training split.

    Raises:
        ValueError: a column is missing or holds another type.
    """
    where = f"{task.name} ({split})"
    label_column = task.label_column or settings.label_column
    text_columns = choose_columns(
        list(columns),
        settings.text_columns or task.text_columns,
        label_column,
        where,
        flags,
    )
    labels = list(columns[label_column])
    # Identity and type first: a label may be a list or an array, and is refused below.
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
    for column in text_columns:
        values = list(columns[column])  # once: each access of a column reads it anew
        texts.append(["" if values[i] is None else values[i] for i in labelled])
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
                f" {quote(label_column)} is a {type(label).__name__}, expected an"
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
        notes=tuple(notes),
    )
