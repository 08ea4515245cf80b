"""Rows of .jsonl, .csv and .tsv files, with the line each begins on."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sweet_jax.data.columns import check_columns, find_text_columns
from sweet_jax.data.examples import RawTask, Table, make_task
from sweet_jax.data.tasks import Task
from sweet_jax.settings import DataSettings


class Row(NamedTuple):
    """A row of a file: values by column, strings unless the file is JSON."""

    line: int  # where the row begins, from 1
    values: dict[str, Any]


def load_files(task: Task, settings: DataSettings) -> RawTask:
    """Returns the rows of the files that the settings name.

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
            "data.task=file needs data.train_file, and data.test_file (or"
            " data.validation_file) to test on: set them to .jsonl, .csv or .tsv files"
        )
    text_columns = settings.text_columns
    tables = {}
    for split, name in files.items():
        path = Path(name)
        columns, rows = read_rows(path, f"data.{split}_file")
        # The training file decides; the others must have the same columns.
        text_columns = text_columns or find_text_columns(columns, path.name)
        check_columns(columns, text_columns, settings.label_column, path.name)
        texts = [
            [_get_text(row, column, path.name) for row in rows]
            for column in text_columns
        ]
        tables[split] = Table(
            where=path.name,
            unit="line",
            positions=[row.line for row in rows],
            row_ids=range(len(rows)),
            texts=texts[0],
            pairs=texts[1] if len(texts) == 2 else None,
            labels=[_get_label(row, settings.label_column, path.name) for row in rows],
        )
    return make_task(task, tables, (), settings.allow_empty_text)


def read_rows(path: Path, field: str) -> tuple[list[str], list[Row]]:
    """Returns the columns and the rows of a .jsonl, .csv or .tsv file.

    A .csv quotes as RFC 4180 says; a .tsv knows no quotes, as those of GLUE.

    Args:
        path: the file.
        field: the setting that names it, for messages.

    Raises:
        ValueError: the file cannot be read, has another extension, is not UTF-8, is
            empty or malformed.
    """
    readers = {".jsonl": _parse_jsonl, ".csv": _parse_csv, ".tsv": _parse_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{field}={path}: unknown extension {path.suffix!r}, allowed are"
            f" {', '.join(readers)}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{field}={path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name} line {line}: byte {error.start} (0x{data[error.start]:02x})"
            " is not UTF-8: save the file as UTF-8"
        ) from error
    rows = list(readers[path.suffix.lower()](text, path))
    if not rows:
        raise ValueError(f"{path.name} is empty: expected rows with texts and labels")
    return list(rows[0].values), rows


def _parse_jsonl(text: str, path: Path) -> Iterator[Row]:
    # Not splitlines(): JSON strings may hold U+2028 and the like.
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            values = json.loads(content)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path.name} line {line} is not JSON ({error.msg}): expected one"
                " object a line"
            ) from error
        if not isinstance(values, dict):
            raise ValueError(
                f"{path.name} line {line} is a JSON {type(values).__name__}, expected"
                ' an object such as {"text": "...", "label": 1}'
            )
        yield Row(line, values)


def _parse_csv(text: str, path: Path) -> Iterator[Row]:
    tabs = path.suffix.lower() == ".tsv"
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    columns: list[str] = []
    line = 1
    try:
        for row in reader:
            if not row:
                pass  # a blank line
            elif not columns:
                columns = row
            elif len(row) != len(columns):
                raise ValueError(
                    f"{path.name} line {line} has {len(row)} fields, the header has"
                    f" {len(columns)}: quote fields that hold the separator"
                )
            else:
                yield Row(line, dict(zip(columns, row, strict=True)))
            line = reader.line_num + 1  # a quoted field may span lines
    except csv.Error as error:
        raise ValueError(
            f"{path.name} line {line}: {error}: is a quote left open?"
        ) from error


def _get_text(row: Row, column: str, where: str) -> str:
    if column not in row.values:
        raise ValueError(f"{where} line {row.line} has no column {column!r}")
    text = row.values[column]
    if not isinstance(text, str):
        raise ValueError(
            f"{where} line {row.line}: {column!r} is {json.dumps(text)[:40]}, expected"
            " a string"
        )
    return text


def _get_label(row: Row, column: str, where: str) -> str:
    if column not in row.values:
        raise ValueError(f"{where} line {row.line} has no column {column!r}")
    label = row.values[column]
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise ValueError(
            f"{where} line {row.line}: label {json.dumps(label)[:40]} is not allowed,"
            " expected an integer or a string"
        )
    return str(label)
