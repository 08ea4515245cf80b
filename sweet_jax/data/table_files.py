"""Reads labelled rows of .jsonl, .csv and .tsv files, with their line numbers."""

import contextlib
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweet_jax.data.columns import name_label
from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import (
    NO_COLUMNS,
    SAMPLE_ROWS,
    ColumnFlags,
    Columns,
    find_columns,
)
from sweet_jax.data.lines import LineReader
from sweet_jax.data.rows import (
    COMPRESSED,
    FORMATS,
    Row,
    RowReader,
    find_format,
    format_value,
    holds_surrogates,
    quote,
    take_texts,
)
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.system.files import show

# Limits the memory for columns that are not read.
_MOST_SAMPLE_CHARACTERS = 1 << 26


def load_files(
    task: Task,
    settings: DataSettings,
    flags: ColumnFlags,
    remembered: Columns = NO_COLUMNS,
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of the files that the settings name, by split, and no names.

    Raises:
        ValueError: a file is missing or cannot be read, or its rows cannot be used.
    """
    files = {
        split: name
        for split, name in (
            ("train", settings.train_file),
            ("validation", settings.validation_file),
            ("test", settings.test_file),
        )
        if name
    }
    if "train" not in files:
        raise ValueError(
            f"data.task={task.name} needs rows to train on: set data.train_file to a"
            " .jsonl, .csv or .tsv file"
        )
    paths = {split: (Path(name),) for split, name in files.items()}
    fields = {split: f"data.{split}_file" for split in files}
    asked = Columns(settings.text_columns, settings.label_column)
    return read_splits(paths, fields, asked, flags, remembered), ()


def read_splits(
    paths: dict[str, tuple[Path, ...]],
    fields: dict[str, str],
    asked: Columns,
    flags: ColumnFlags,
    remembered: Columns = NO_COLUMNS,
) -> dict[str, Table]:
    """Reads splits from files.

    Args:
        paths: split -> its files; the first file decides which columns are read, and
            the others must have the same.
        fields: split -> the setting that names its files, for messages.
        asked: the columns that the user names.
        flags: the flags or arguments that name columns, for messages.
        remembered: the columns of a model's training; used if a file has them.

    Raises:
        ValueError: a file cannot be read, or a row cannot be used; the first is named
            with its file and line.
    """
    tables: dict[str, Table] = {}
    for split, names in paths.items():
        tables[split] = _read_table(names, fields[split], asked, flags, remembered)
        asked = tables[split].columns
    return tables


@contextlib.contextmanager
def open_rows(path: Path, field: str) -> Iterator[RowReader]:
    """Opens a .jsonl, .csv or .tsv file.

    Args:
        path: the file.
        field: the setting that names it, for messages.

    Raises:
        ValueError: the file is missing, not a regular file, or of another extension.
    """
    table_format = find_format(path.name)
    if not table_format:
        advice = f"allowed are {', '.join(FORMATS)}"
        if path.suffix.lower() in COMPRESSED:
            advice = f"unpack it first; {advice}"
        raise ValueError(
            f"{field}={show(str(path))}: unknown extension {path.suffix!r}, {advice}"
        )
    # Opening a pipe would wait for a writer.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"{field}={show(str(path))} is not a regular file: a run reads its rows"
            " again when it resumes, so save them in a file"
        )
    try:
        file = io.FileIO(path)
    except OSError as error:
        raise ValueError(
            f"{field}={show(str(path))} cannot be read: {error.strerror}"
        ) from error
    with file:
        where = show(path.name)
        yield RowReader(LineReader(file, where), table_format, where)


def _take_sample(reader: RowReader) -> list[Row]:
    """Returns the first rows, fewer if they are long."""
    sample, size = [], 0
    for row in itertools.islice(reader, SAMPLE_ROWS):
        sample.append(row)
        size += sum(len(v) for v in row.values.values() if isinstance(v, str))
        if size > _MOST_SAMPLE_CHARACTERS:
            break
    return sample


def _list_values(columns: Sequence[str], rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Returns column -> its values in the rows that have it."""
    return {
        name: [row.values[name] for row in rows if name in row.values]
        for name in columns
    }


def _read_table(
    paths: Sequence[Path],
    field: str,
    columns: Columns,
    flags: ColumnFlags,
    remembered: Columns,
) -> Table:
    """Returns the rows of a split."""
    lines: list[int] = []
    files: list[str] = []
    texts: list[tuple[str, ...]] = []
    labels: list[str] = []
    notes: list[str] = []
    for path in paths:
        where = show(path.name)
        with open_rows(path, field) as reader:
            first = _take_sample(reader)
            if reader.columns is not None:
                values = _list_values(reader.columns, first)
                columns = find_columns(values, where, columns, remembered, flags)
            for row in itertools.chain(first, reader):
                row_texts, problem = (
                    ((), row.problem) if row.problem else take_texts(row, columns.texts)
                )
                if not problem and columns.label not in row.values:
                    problem = f"has no column {quote(columns.label)}"
                if problem:
                    raise ValueError(f"{where} line {row.line} {problem}")
                label = name_label(row.values[columns.label])
                if not label or holds_surrogates(label):
                    raise ValueError(
                        f"{where} line {row.line}: label"
                        f" {format_value(row.values[columns.label])} is not allowed,"
                        " expected an integer or a string (a classifier offers no"
                        " regression): fill it or drop the row"
                    )
                lines.append(row.line)
                files.append(where)
                texts.append(row_texts)
                labels.append(label)
            notes += reader.make_notes()
    if len(paths) > 1:
        names = ", ".join(show(path.name) for path in paths[:5])
        notes.append(f"{len(paths)} files make one split: {names}")
    return Table(
        where=show(paths[0].name),
        unit="line",
        positions=lines,
        row_ids=range(len(lines)),
        texts=[row[0] for row in texts],
        pairs=[row[1] for row in texts] if len(columns.texts) == 2 else None,
        labels=labels,
        files=files if len(paths) > 1 else (),
        columns=columns,
        notes=tuple(notes),
    )
