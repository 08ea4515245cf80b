"""Reads rows of .csv, .tsv and .jsonl as a stream, for training and for predict.

Text stays text: types are not guessed, and no text stands for a missing value. An
unusable row is returned with its problem: training stops at the first one, predict
reports it and continues. Lines are counted from 1, as in editors.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sweet_jax.data.lines import LONGEST_ROW, RowsError

FORMATS = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z")
_SURROGATES = re.compile("[\ud800-\udfff]")
# `LineReader` decodes bytes that are not UTF-8 to these.
_OTHER_BYTES = re.compile("[\udc80-\udcff]")
_LONGEST_QUOTE = 60
TOO_LONG = f"is longer than {LONGEST_ROW:,} characters"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        line: the number of its first line.
        values: column -> a string or a value of JSON; {} if there is a problem.
        problem: why it cannot be used, to follow "line 3" in a message; or empty.
    """

    line: int
    values: dict[str, Any]
    problem: str = ""


class RowReader:
    """Iterates over the rows of a table.

    A .csv has the quotes of RFC 4180; a .tsv has no quotes, as in GLUE.

    Attributes:
        columns: the names in the header, or the keys of the first usable object; None
            until they are read, which is before the first usable row is returned.
        where: its name in messages.
        num_rows: rows returned so far, unusable ones included.
    """

    def __init__(
        self, lines: Iterable[str], table_format: str, where: str = "the input"
    ) -> None:
        """Makes the reader; nothing is read yet.

        Args:
            lines: lines with their ends, as from `LineReader`.
            table_format: csv, tsv or jsonl.
            where: its name in messages.
        """
        self.columns: tuple[str, ...] | None = None
        self.num_rows = 0
        self.where = where
        self._quoted = _Finding()  # Rows of a .tsv with fields in quotes.
        self._swallowed = _Finding()  # Fields of a .csv that seem to contain rows.
        if table_format == "jsonl":
            self._rows = self._read_objects(lines)
        else:
            self._rows = self._read_table(lines, table_format)

    def __iter__(self) -> "RowReader":
        """Returns itself."""
        return self

    def __next__(self) -> Row:
        """Returns the next row.

        Raises:
            RowsError: there are no rows, the header cannot be used, or the file is of
                another kind.
        """
        row = next(self._rows, None)
        if row is None:
            if not self.num_rows:
                detail = "" if self.columns is None else " but for its header"
                raise RowsError(f"{self.where} is empty{detail}: expected rows")
            raise StopIteration
        self.num_rows += 1
        return row

    def make_notes(self) -> list[str]:
        """Returns warnings about the rows read so far."""
        notes = []
        if quoted := self._quoted:
            notes.append(
                f"{self.where}: {quoted.count:,} of {self.num_rows:,} rows have a"
                f" field in quotes, as csv writes it (line {quoted.line} is the first);"
                " a .tsv has no quotes, so they are read as part of the text: save it"
                " without them, or as .csv"
            )
        if swallowed := self._swallowed:
            notes.append(
                f"{self.where}: {swallowed.count:,} quoted fields hold lines that look"
                f" like rows of their own (the first: {swallowed.detail}): is a quote"
                " left open there?"
            )
        return notes

    def _read_objects(self, lines: Iterable[str]) -> Iterator[Row]:
        is_first = True
        for line, content in enumerate(lines, start=1):
            content = content.strip(" \t\r\n")
            if not content:
                continue
            if is_first and content[0] == "[":
                raise RowsError(
                    f"{self.where} line {line} begins a JSON array: expected one"
                    ' object a line, such as {"text": "...", "label": 1}'
                )
            is_first = False
            values, problem = _parse_object(content)
            if not problem and self.columns is None:
                self.columns = tuple(values)
            yield Row(line, values, problem)

    def _read_table(self, lines: Iterable[str], table_format: str) -> Iterator[Row]:
        # `_Feed` limits the size of rows, and so of their fields.
        csv.field_size_limit(sys.maxsize)
        tabs = table_format == "tsv"
        delimiter = "\t" if tabs else ","
        feed = _Feed(lines)
        reader = csv.reader(
            feed,
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            strict=True,
        )
        while True:
            line = feed.begin_row()
            try:
                fields = next(reader, None)
                problem = feed.problem
            except csv.Error as error:
                fields, problem = [], _describe_csv_error(error, feed, line)
            if fields is None:
                return
            if not fields and not problem:
                continue  # A blank line.
            if self.columns is None:
                self._take_header(fields, problem, line)
                continue
            columns = self.columns
            if not problem:
                problem = _check_fields(fields, columns, tabs)
            if problem:
                yield Row(line, {}, problem)
                continue
            if tabs:
                if any(map(_is_quoted, fields)):
                    self._quoted.add(line)
            elif feed.line_num - line > 2 and _holds_rows(fields, delimiter):
                count = feed.line_num - line + 1
                self._swallowed.add(
                    line, f"lines {line} to {feed.line_num}, {count:,} lines"
                )
            yield Row(line, dict(zip(columns, fields, strict=True)))

    def _take_header(self, fields: list[str], problem: str, line: int) -> None:
        if problem:
            raise RowsError(f"{self.where} line {line}, the header, {problem}")
        # Spreadsheets may write several columns without a name; they are never read.
        if twice := _find_twice(filter(None, fields)):
            raise RowsError(
                f"{self.where} has two columns of the same name {quote(twice)}: rename"
                " or drop one"
            )
        self.columns = tuple(fields)


class _Finding:
    """How often something was found, and where first."""

    def __init__(self) -> None:
        self.count = self.line = 0
        self.detail = ""

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, line: int, detail: str = "") -> None:
        if not self.count:
            self.line, self.detail = line, detail
        self.count += 1


class _Feed:
    """Counts and checks the lines that csv's reader takes; csv does not tell which.

    Attributes:
        line_num: number of the last line taken.
        problem: the problem of the lines taken since `begin_row`.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._size = 0  # Characters since `begin_row`.
        self.line_num = 0
        self.problem = ""

    def begin_row(self) -> int:
        """Starts a row; returns the number of its first line."""
        self._size, self.problem = 0, ""
        return self.line_num + 1

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.line_num += 1
        self._size += len(line)
        if self._size > LONGEST_ROW:
            self.problem = TOO_LONG
            raise csv.Error(TOO_LONG)
        self.problem = self.problem or find_other_bytes(line)
        return line


def find_format(path_name: str) -> str:
    """Returns csv, tsv or jsonl by the extension of a name; empty for any other."""
    name = path_name.lower()
    return next((f for ending, f in FORMATS.items() if name.endswith(ending)), "")


def take_texts(row: Row, columns: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Returns the texts of a usable row and "", or () and the problem."""
    for column in columns:
        if column not in row.values:
            return (), f"has no column {quote(column)}"
        text = row.values[column]
        if not isinstance(text, str):
            return (), f"has {format_value(text)} as {quote(column)}, expected a string"
        if holds_surrogates(text):
            name = quote(column)
            return (), f"has a lone surrogate in {name}, which is not valid Unicode"
    return tuple(row.values[column] for column in columns), ""


def holds_surrogates(text: str) -> bool:
    """Returns whether a text has a lone surrogate, which is not valid Unicode."""
    return _SURROGATES.search(text) is not None


def quote(text: str) -> str:
    """Returns the beginning of a text in quotes, for a message."""
    cut = text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."
    return repr(cut)


def format_value(value: Any) -> str:
    """Returns a value of JSON, or its kind, for a message."""
    if isinstance(value, dict | list):  # It may be deep and large.
        return "an object" if isinstance(value, dict) else "an array"
    return json.dumps(value)[:40]


def _parse_object(content: str) -> tuple[dict[str, Any], str]:
    """Returns the object of a line of .jsonl and "", or {} and the problem."""
    if len(content) > LONGEST_ROW:
        return {}, TOO_LONG
    if problem := find_other_bytes(content):
        return {}, problem
    try:
        values = json.loads(content, object_pairs_hook=_make_object)
    except json.JSONDecodeError as error:
        return {}, f"is not JSON ({error.msg}): expected one object a line"
    except RecursionError:
        return {}, "is not JSON that can be read: it is nested too deeply"
    except _SameKeyError as error:
        return {}, f"has the key {quote(str(error))} twice in one object"
    except ValueError:  # Python refuses integers of more than 4,300 digits.
        return {}, "is not JSON that can be read: a number has too many digits"
    if not isinstance(values, dict):
        kind = type(values).__name__
        return {}, (
            f"is a JSON {kind}, expected an object such as"
            ' {"text": "...", "label": 1}'
        )
    return values, ""


class _SameKeyError(ValueError):
    """An object has a key twice."""


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _SameKeyError(_find_twice(name for name, _ in pairs))
    return values


def _find_twice(names: Iterable[str]) -> str:
    """Returns the first name that occurs twice; empty if none does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _check_fields(fields: list[str], columns: tuple[str, ...], tabs: bool) -> str:
    """Returns the problem with the fields of a row, or an empty string."""
    if len(fields) != len(columns):
        advice = "quote fields that hold the separator"
        if tabs:
            advice = "a field cannot hold a tab or a line break"
            if any(field.startswith('"') for field in fields):
                advice += ", and .tsv has no quotes: save it as .csv"
        found = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        return f"has {found}, the header has {len(columns)}: {advice}"
    if len(columns) > 1 and tuple(fields) == columns:
        return "repeats the header: delete it"
    return ""


def _describe_csv_error(error: csv.Error, feed: _Feed, line: int) -> str:
    lines = ""
    if (count := feed.line_num - line + 1) > 1:
        lines = (
            f"; the quoted field contains lines {line} to {feed.line_num} ({count:,}"
        )
        lines += " lines), which are not read"
    if feed.problem == TOO_LONG:
        return f"{TOO_LONG}: is a quote left open?{lines}"
    if "end of data" in str(error):
        return f'leaves a quote open: close it, or write " as ""{lines}'
    return (
        f'is malformed: {error}: is a quote left open, or a " within quotes not'
        f' written as ""?{lines}'
    )


def find_other_bytes(line: str) -> str:
    """Returns the problem of a line with bytes that are not UTF-8, or ""."""
    if line.isascii() or not (found := _OTHER_BYTES.search(line)):
        return ""
    byte = found.group().encode("utf-8", "surrogateescape")
    meant = byte.decode("cp1252", "replace")
    looks = "" if meant == "\ufffd" else f", {meant!r} in Latin-1 and Windows-1252"
    return f"is not UTF-8 (byte 0x{byte.hex()}{looks}): save the file as UTF-8"


def _is_quoted(field: str) -> bool:
    """Returns whether a field looks like a quoted field of csv."""
    return (
        len(field) > 1
        and field[0] == field[-1] == '"'
        and '"' not in field[1:-1].replace('""', "")
    )


def _holds_rows(fields: list[str], delimiter: str) -> bool:
    """Returns whether most lines in a field have as many separators as its row."""
    separators = len(fields) - 1
    for field in fields if separators else ():
        inner = re.split("\r\n|\r|\n", field)[1:-1]
        like_rows = sum(line.count(delimiter) == separators for line in inner)
        if like_rows > 1 and 2 * like_rows >= len(inner):
            return True
    return False
