"""Labelled rows of .jsonl, .csv and .tsv files, with the line each begins on."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from sweet_jax.data.columns import ColumnFlags, choose_columns, name_label
from sweet_jax.data.examples import Table
from sweet_jax.data.lines import LineReader
from sweet_jax.data.rows import (
    COMPRESSED,
    FORMATS,
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


def load_files(
    task: Task, settings: DataSettings, flags: ColumnFlags
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of the files that the settings name, by split; no label names.

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
    if "train" not in files or len(files) < 2:
        raise ValueError(
            f"data.task={task.name} needs data.train_file, and data.test_file (or"
            " data.validation_file) to test on: set them to .jsonl, .csv or .tsv files"
        )
    paths = {split: (Path(name),) for split, name in files.items()}
    fields = {split: f"data.{split}_file" for split in files}
    return read_splits(paths, fields, settings, flags), ()


def read_splits(
    paths: dict[str, tuple[Path, ...]],
    fields: dict[str, str],
    settings: DataSettings,
    flags: ColumnFlags,
) -> dict[str, Table]:
    """Returns the rows of splits that lie in files.

    Args:
        paths: by split; the first file decides which columns hold texts, and the
            others must have the same.
        fields: what named the files, by split, for messages.
        settings: its columns.
        flags: what a person types to name columns, for messages.

    Raises:
        ValueError: a file cannot be read, or a row cannot be used; the first is named
            with its file and line.
    """
    text_columns = settings.text_columns
    tables = {}
    for split, names in paths.items():
        tables[split], text_columns = _read_table(
            names, fields[split], text_columns, settings.label_column, flags
        )
    return tables


@contextlib.contextmanager
def open_rows(path: Path, field: str) -> Iterator[RowReader]:
    """Opens a .jsonl, .csv or .tsv file.

    Args:
        path: the file.
        field: the setting that names it, for messages.

    Raises:
        ValueError: no such file, no regular one, or another extension.
    """
    table_format = find_format(path.name)
    if not table_format:
        advice = f"allowed are {', '.join(FORMATS)}"
        if path.suffix.lower() in COMPRESSED:
            advice = f"unpack it first; {advice}"
        raise ValueError(
            f"{field}={show(str(path))}: unknown extension {path.suffix!r}, {advice}"
        )
    # Opened, a pipe that nobody writes to would be waited for.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"{field}={show(str(path))} is no regular file: a run reads its rows again"
            " when it goes on, so save them in a file"
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


def _read_table(
    paths: Sequence[Path],
    field: str,
    text_columns: tuple[str, ...],
    label_column: str,
    flags: ColumnFlags,
) -> tuple[Table, tuple[str, ...]]:
    """Returns the rows of a split, and the columns of their texts."""
    lines: list[int] = []
    files: list[str] = []
    texts: list[tuple[str, ...]] = []
    labels: list[str] = []
    notes: list[str] = []
    for path in paths:
        where = show(path.name)
        with open_rows(path, field) as reader:
            is_checked = False
            for row in reader:
                if not is_checked and reader.columns is not None:
                    text_columns = choose_columns(
                        reader.columns, text_columns, label_column, where, flags
                    )
                    is_checked = True
                row_texts, problem = (
                    ((), row.problem) if row.problem else take_texts(row, text_columns)
                )
                if not problem and label_column not in row.values:
                    problem = f"has no column {quote(label_column)}"
                if problem:
                    raise ValueError(f"{where} line {row.line} {problem}")
                label = name_label(row.values[label_column])
                if not label or holds_surrogates(label):
                    raise ValueError(
                        f"{where} line {row.line}: label"
                        f" {format_value(row.values[label_column])} is not allowed,"
                        " expected an integer or a string: fill it or drop the row"
                    )
                lines.append(row.line)
                files.append(where)
                texts.append(row_texts)
                labels.append(label)
            notes += reader.make_notes()
    if len(paths) > 1:
        names = ", ".join(show(path.name) for path in paths[:5])
        notes.append(f"{len(paths)} files make one split: {names}")
    table = Table(
        where=show(paths[0].name),
        unit="line",
        positions=lines,
        row_ids=range(len(lines)),
        texts=[row[0] for row in texts],
        pairs=[row[1] for row in texts] if len(text_columns) == 2 else None,
        labels=labels,
        files=files if len(paths) > 1 else (),
        notes=tuple(notes),
    )
    return table, text_columns
