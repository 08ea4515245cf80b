"""Reads the inputs of a prediction job as a stream: text, csv, tsv or jsonl.

An unusable row is returned with its problem; the job decides whether to stop. Lines are
counted from 1.
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
    """The input cannot be read; the message is one line with the reason."""


class InputRow(NamedTuple):
    """One row of the input.

    Attributes:
        line: the line at which it begins.
        texts: one text, or the two of a pair; () if there is a problem.
        problem: why the row is unusable, to follow "line 3"; empty otherwise.
        row_id: value of the id column; None without one.
        kept: input values to write with the prediction, by column; None: none.
    """

    line: int
    texts: tuple[str, ...]
    problem: str = ""
    row_id: Any = None
    kept: dict[str, Any] | None = None


class PassedColumns(NamedTuple):
    """Input columns that are copied to the output.

    Attributes:
        id_column: column that identifies a row; empty: none.
        keep_columns: further columns; `("all",)`: every column with a name.
    """

    id_column: str = ""
    keep_columns: tuple[str, ...] = ()


NOTHING_PASSED = PassedColumns()


class InputReader:
    """Iterates over the rows of an input; the constructor reads the first one.

    Attributes:
        is_empty: whether the input has no rows.
    """

    def __init__(self, rows: Iterator[InputRow], table: RowReader | None) -> None:
        """Reads the first row; `table` is the source of `rows`, None for text."""
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
        """The column names of a table, after the header is read; () for text."""
        table = self._table
        return () if table is None or table.columns is None else table.columns


def find_format(name: str, given: str) -> str:
    """Returns the given format, or else that of the ending of the file name.

    Raises:
        InputError: no format is given and the ending is unknown.
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
        lines: lines with their line ends, from a `LineReader`.
        input_format: one of `FORMATS`; in `text`, a line is one text, or for pairs two
            texts separated by a tab.
        num_texts: 1, or 2 for a model of pairs.
        text_columns: text columns of a table; (): the remembered ones, else usual
            names.
        where: name of the stream in messages.
        remembered: text columns of the training, used if the table has them.
        passed: columns to copy to the output.

    Raises:
        ValueError: the input has no rows or another format (compressed, UTF-16), or a
            table lacks these columns.
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
    """Returns the text columns; a message may show values of `row` as examples."""
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
    """Raises InputError if a column to copy is missing."""
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
        # In jsonl, a row may lack a key.
        kept = {name: row.values.get(name) for name in passed.keep_columns}
    try:
        json.dumps([row_id, kept], allow_nan=False)
    except (ValueError, RecursionError):
        problem = "has a value that JSON cannot hold (NaN, infinity, or nested deeply)"
        return InputRow(row.line, (), problem)
    return InputRow(row.line, texts, "", row_id, kept)


def _count_texts(num_texts: int) -> str:
    return "single texts" if num_texts == 1 else "pairs of texts"
