"""Inputs of a prediction job, read as a stream: text, csv, tsv or jsonl.

A row that cannot be used is a row with its problem: whoever runs the job decides
whether that stops it. Lines are counted from 1, as editors do.
"""

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sweet_jax.data.columns import find_text_columns

FORMATS = ("text", "csv", "tsv", "jsonl")
_FORMAT_BY_ENDING = {".txt": "text", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}
# What `LineReader` makes of bytes that are not UTF-8, and JSON of "\ud800".
_SURROGATES = re.compile("[\ud800-\udfff]")
# Far beyond any text, and so little that a quote left open does not swallow the memory.
_LONGEST_FIELD = 1 << 24


class InputError(ValueError):
    """An input cannot be read as a whole: one line that says why."""


class InputRow(NamedTuple):
    """One row of the input.

    Attributes:
        line: where it begins.
        texts: one text, or two of a pair; () where there is a problem.
        problem: why it cannot be used, to be read behind "line 3"; empty otherwise.
    """

    line: int
    texts: tuple[str, ...]
    problem: str = ""


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
    for ending, found in _FORMAT_BY_ENDING.items():
        if name.lower().endswith(ending):
            return found
    raise InputError(
        f"--input={name}: its ending is none of {', '.join(_FORMAT_BY_ENDING)}, give"
        f" --format of {', '.join(FORMATS)}"
    )


def read_inputs(
    lines: Iterable[str],
    input_format: str,
    num_texts: int,
    text_columns: tuple[str, ...] = (),
) -> Iterator[InputRow]:
    """Returns the rows of a stream, read one at a time; the first is read at once.

    Args:
        lines: of a `LineReader`.
        input_format: of `FORMATS`; in `text` a line is a text, or two separated by a
            tab for pairs.
        num_texts: 1, or 2 for a model of pairs.
        text_columns: of a table; (): found by their usual names.

    Raises:
        InputError: the input has no rows, or a table has no such columns.
    """
    if text_columns and len(text_columns) != num_texts:
        raise InputError(
            f"--text_columns={','.join(text_columns)}: this model takes"
            f" {_count_texts(num_texts)}, so name {num_texts}"
        )
    if input_format == "text":
        rows = _read_texts(lines, num_texts)
    elif input_format == "jsonl":
        rows = _read_objects(lines, text_columns, num_texts)
    else:
        rows = _read_table(lines, input_format, text_columns, num_texts)
    first = next(rows, None)
    if first is None:
        raise InputError("the input is empty: expected a row or more")
    return (_check(row) for row in itertools.chain([first], rows))


def _check(row: InputRow) -> InputRow:
    if row.problem:
        return row
    for text in row.texts:
        if _SURROGATES.search(text):
            problem = "is no Unicode: bytes that are not UTF-8, or half a surrogate"
            return InputRow(row.line, (), problem)
        if not text.strip():
            return InputRow(row.line, (), "is empty")
    return row


def _read_texts(lines: Iterable[str], num_texts: int) -> Iterator[InputRow]:
    for line, content in enumerate(lines, start=1):
        text = content.removesuffix("\r")
        texts = tuple(text.split("\t")) if num_texts == 2 else (text,)
        if len(texts) != num_texts:
            found = f"{len(texts)} text{'s' * (len(texts) > 1)}"
            problem = f"has {found}, this model takes two separated by a tab"
            yield InputRow(line, (), problem)
        else:
            yield InputRow(line, texts)


def _read_objects(
    lines: Iterable[str], text_columns: tuple[str, ...], num_texts: int
) -> Iterator[InputRow]:
    for line, content in enumerate(lines, start=1):
        if not content.strip():
            continue
        try:
            values = json.loads(content)
        except json.JSONDecodeError as error:
            yield InputRow(line, (), f"is not JSON ({error.msg})")
            continue
        # Python's parser gives up on numbers of many digits and on deep nesting.
        except (ValueError, RecursionError):
            yield InputRow(line, (), "is not JSON that can be read")
            continue
        if not isinstance(values, dict):
            yield InputRow(line, (), f"is a JSON {type(values).__name__}, no object")
            continue
        # The first object decides for all.
        if not text_columns:
            text_columns = _find_columns(list(values), num_texts)
        yield _pick(line, values, text_columns)


def _read_table(
    lines: Iterable[str],
    input_format: str,
    text_columns: tuple[str, ...],
    num_texts: int,
) -> Iterator[InputRow]:
    csv.field_size_limit(_LONGEST_FIELD)
    # A .csv quotes as RFC 4180 says; a .tsv knows no quotes, as those of GLUE.
    tabs = input_format == "tsv"
    reader = csv.reader(
        (line + "\n" for line in lines),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] = []
    while True:
        line = reader.line_num + 1  # A quoted field may span lines.
        try:
            values = next(reader, None)
        except csv.Error as error:
            if not header:
                raise InputError(f"the header is malformed: {error}") from error
            yield InputRow(line, (), f"is malformed: {error}")
            continue
        if values is None:
            return
        if not values:
            continue
        if not header:
            header = values
            text_columns = text_columns or _find_columns(header, num_texts)
            if missing := [name for name in text_columns if name not in header]:
                raise InputError(
                    f"the input has no column {missing[0]!r}; its columns are"
                    f" {', '.join(header)}: set --text_columns"
                )
        elif len(values) != len(header):
            problem = f"has {len(values)} fields, the header {len(header)}"
            yield InputRow(line, (), problem)
        else:
            yield _pick(line, dict(zip(header, values, strict=True)), text_columns)


def _find_columns(columns: Sequence[str], num_texts: int) -> tuple[str, ...]:
    try:
        found = find_text_columns(columns, "the input")
    except ValueError as error:
        raise InputError(
            "the input has no text column of a usual name; its columns are"
            f" {', '.join(columns)}: name {_count_texts(num_texts)} in --text_columns"
        ) from error
    if len(found) != num_texts:
        raise InputError(
            f"the input has the text columns {', '.join(found)}, this model takes"
            f" {_count_texts(num_texts)}: name {num_texts} in --text_columns"
        )
    return found


def _count_texts(num_texts: int) -> str:
    return "single texts" if num_texts == 1 else "pairs of texts"


def _pick(line: int, values: dict[str, Any], text_columns: tuple[str, ...]) -> InputRow:
    for column in text_columns:
        if column not in values:
            return InputRow(line, (), f"has no {column}")
        if not isinstance(values[column], str):
            kind = type(values[column]).__name__
            return InputRow(line, (), f"has a {kind} as {column}, expected a text")
    return InputRow(line, tuple(values[column] for column in text_columns))
