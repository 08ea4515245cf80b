"""Inputs of a prediction job, read as a stream: text, csv, tsv or jsonl.

A row that cannot be used is a row with its problem: whoever runs the job decides
whether that stops it. Lines are counted from 1, as editors do.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sweet_jax.data.find_columns import ColumnFlags, Columns, find_columns
from sweet_jax.data.lines import LONGEST_ROW
from sweet_jax.data.rows import (
    COMPRESSED,
    TOO_LONG,
    Row,
    RowReader,
    find_other_bytes,
    quote,
    take_texts,
)
from sweet_jax.data.rows import find_format as find_table_format

logger = logging.getLogger(__name__)

FORMATS = ("text", "csv", "tsv", "jsonl")
_ENDINGS = (".txt", ".csv", ".tsv", ".jsonl")
_FLAGS = ColumnFlags(text="--text_columns")
ALL = "all"


class InputError(ValueError):
    """An input cannot be read as a whole: one line that says why."""


class InputRow(NamedTuple):
    """One row of the input.

    Attributes:
        line: where it begins.
        texts: one text, or two of a pair; () where there is a problem.
        problem: why it cannot be used, to be read behind "line 3"; empty otherwise.
        row_id: the value of the id column; None without one.
        kept: values by column that are written beside the answer; None: none are.
    """

    line: int
    texts: tuple[str, ...]
    problem: str = ""
    row_id: Any = None
    kept: dict[str, Any] | None = None


class PassedColumns(NamedTuple):
    """Columns that the model does not read: they are written beside the answers.

    Attributes:
        id_column: whose values say which row an answer is of; empty: none.
        keep_columns: of further values; `("all",)`: every column that has a name.
    """

    id_column: str = ""
    keep_columns: tuple[str, ...] = ()


NOTHING_PASSED = PassedColumns()


class InputReader:
    """Iterates over the rows of an input; the first is read when it is made.

    Attributes:
        is_empty: there is none.
    """

    def __init__(self, rows: Iterator[InputRow], table: RowReader | None) -> None:
        """Reads the first row; `rows` come from `table`, if from any."""
        self._rows, self._table = rows, table
        self._first = next(rows, None)
        self.is_empty = self._first is None

    def __iter__(self) -> "InputReader":
        """Returns itself."""
        return self

    def __next__(self) -> InputRow:
        """Returns the next row."""
        row, self._first = self._first, None
        row = next(self._rows) if row is None else row
        if not row.problem and not all(text.strip() for text in row.texts):
            return InputRow(row.line, (), "is empty")
        return row

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of a table's columns, once they are read; () of text."""
        table = self._table
        return () if table is None or table.columns is None else table.columns


def find_format(name: str, given: str) -> str:
    """Returns the format of an input by its name's ending, unless one is given.

    Raises:
        InputError: neither says.
    """
    if given:
        if given not in FORMATS:
            raise InputError(f"--format={given}: allowed are {', '.join(FORMATS)}")
        return given
    if name == "-":
        return "text"
    if found := "text" if name.lower().endswith(".txt") else find_table_format(name):
        return found
    advice = f"give --format of {', '.join(FORMATS)}"
    if name.lower().endswith(COMPRESSED):
        advice = "unpack it first"
    raise InputError(
        f"--input={name}: its ending is none of {', '.join(_ENDINGS)}, {advice}"
    )


def read_inputs(
    lines: Iterable[str],
    input_format: str,
    num_texts: int,
    text_columns: tuple[str, ...] = (),
    where: str = "the input",
    remembered: tuple[str, ...] = (),
    passed: PassedColumns = NOTHING_PASSED,
) -> InputReader:
    """Returns the rows of a stream, read one at a time; the first is read at once.

    Args:
        lines: with their ends, of a `LineReader`.
        input_format: of `FORMATS`; in `text` a line is a text, or two separated by a
            tab for pairs.
        num_texts: 1, or 2 for a model of pairs.
        text_columns: of a table; (): those remembered, else found by usual names.
        where: what to call the stream in messages.
        remembered: text columns of the model's training, read where a table has them.
        passed: columns to write beside the answers.

    Raises:
        ValueError: the input has no rows or is of another kind (compressed, UTF-16), or
            a table has no such columns.
    """
    if text_columns and len(text_columns) != num_texts:
        raise InputError(
            f"--text_columns={','.join(text_columns)}: this model takes"
            f" {_count_texts(num_texts)}, so name {num_texts}"
        )
    table = None
    if input_format == "text":
        rows = _read_texts(lines, num_texts)
    else:
        table = RowReader(lines, input_format, where)
        columns = Columns(text_columns), Columns(remembered)
        rows = _read_rows(table, *columns, num_texts, passed)
    reader = InputReader(rows, table)
    if reader.is_empty:
        raise InputError(f"{where} is empty: expected a row or more")
    return reader


def _read_texts(lines: Iterable[str], num_texts: int) -> Iterator[InputRow]:
    for line, content in enumerate(lines, start=1):
        text = content.rstrip("\r\n")
        texts = tuple(text.split("\t")) if num_texts == 2 else (text,)
        problem = find_other_bytes(text)
        if len(text) > LONGEST_ROW:
            problem = TOO_LONG
        elif len(texts) != num_texts:
            found = f"{len(texts)} text{'s' * (len(texts) > 1)}"
            problem = f"has {found}, this model takes two separated by a tab"
        yield InputRow(line, () if problem else texts, problem)


def _read_rows(
    reader: RowReader,
    asked: Columns,
    remembered: Columns,
    num_texts: int,
    passed: PassedColumns,
) -> Iterator[InputRow]:
    texts: tuple[str, ...] = ()
    for row in reader:
        if not texts and reader.columns is not None:
            texts = _find_texts(reader, row, asked, remembered, num_texts)
            _check_passed(reader.columns, passed, reader.where)
        yield _read_row(row, texts, passed)
    for note in reader.make_notes():
        logger.warning("%s", note)


def _find_texts(
    reader: RowReader, row: Row, asked: Columns, remembered: Columns, num_texts: int
) -> tuple[str, ...]:
    """Returns the text columns; `row` gives examples for a message."""
    assert reader.columns is not None
    values = {
        name: [row.values[name]] if name in row.values else []
        for name in reader.columns
    }
    texts = find_columns(
        values, reader.where, asked, remembered, _FLAGS, needs_label=False
    ).texts
    if len(texts) != num_texts:
        raise InputError(
            f"{reader.where} has the text columns {', '.join(texts)},"
            f" this model takes {_count_texts(num_texts)}: name {num_texts} in"
            " --text_columns"
        )
    return texts


def _check_passed(columns: Sequence[str], passed: PassedColumns, where: str) -> None:
    """Raises InputError where a column to pass on is not there."""
    named = () if passed.keep_columns == (ALL,) else passed.keep_columns
    for flag, names in (
        ("--id_column", filter(None, [passed.id_column])),
        ("--keep_columns", named),
    ):
        for name in names:
            if name not in columns:
                known = ", ".join(map(quote, columns[:20]))
                raise InputError(
                    f"{flag}={quote(name)}: {where} has no such column; its columns are"
                    f" {known}{', ...' * (len(columns) > 20)}"
                )


def _read_row(row: Row, columns: tuple[str, ...], passed: PassedColumns) -> InputRow:
    texts, problem = ((), row.problem) if row.problem else take_texts(row, columns)
    if problem or passed == NOTHING_PASSED:
        return InputRow(row.line, texts, problem)
    if passed.id_column and passed.id_column not in row.values:
        return InputRow(row.line, (), f"has no column {quote(passed.id_column)}")
    row_id = row.values[passed.id_column] if passed.id_column else None
    kept = None
    if passed.keep_columns == (ALL,):
        kept = {name: value for name, value in row.values.items() if name}
    elif passed.keep_columns:
        # A key that is not in every object.
        kept = {name: row.values.get(name) for name in passed.keep_columns}
    try:
        json.dumps([row_id, kept], allow_nan=False)
    except (ValueError, RecursionError):
        problem = "has a value that JSON cannot hold (NaN, infinity, or nested deeply)"
        return InputRow(row.line, (), problem)
    return InputRow(row.line, texts, "", row_id, kept)


def _count_texts(num_texts: int) -> str:
    return "single texts" if num_texts == 1 else "pairs of texts"
