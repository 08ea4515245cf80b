"""Inputs of a prediction job, read as a stream: text, csv, tsv or jsonl.

A row that cannot be used is a row with its problem: whoever runs the job decides
whether that stops it. Lines are counted from 1, as editors do.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from absl import logging

from sweet_jax.data.columns import ColumnFlags, choose_columns
from sweet_jax.data.lines import LONGEST_ROW
from sweet_jax.data.rows import (
    COMPRESSED,
    TOO_LONG,
    RowReader,
    find_other_bytes,
    take_texts,
)
from sweet_jax.data.rows import find_format as find_table_format

FORMATS = ("text", "csv", "tsv", "jsonl")
_ENDINGS = (".txt", ".csv", ".tsv", ".jsonl")
_FLAGS = ColumnFlags(text="--text_columns")


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
) -> Iterator[InputRow]:
    """Returns the rows of a stream, read one at a time; the first is read at once.

    Args:
        lines: with their ends, of a `LineReader`.
        input_format: of `FORMATS`; in `text` a line is a text, or two separated by a
            tab for pairs.
        num_texts: 1, or 2 for a model of pairs.
        text_columns: of a table; (): found by their usual names.
        where: what to call the stream in messages.

    Raises:
        ValueError: the input has no rows or is of another kind (compressed, UTF-16), or
            a table has no such columns.
    """
    if text_columns and len(text_columns) != num_texts:
        raise InputError(
            f"--text_columns={','.join(text_columns)}: this model takes"
            f" {_count_texts(num_texts)}, so name {num_texts}"
        )
    if input_format == "text":
        rows = _read_texts(lines, num_texts)
    else:
        reader = RowReader(lines, input_format, where)
        rows = _read_rows(reader, text_columns, num_texts)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{where} is empty: expected a row or more")
    return (_check(row) for row in itertools.chain([first], rows))


def _check(row: InputRow) -> InputRow:
    if not row.problem and not all(text.strip() for text in row.texts):
        return InputRow(row.line, (), "is empty")
    return row


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
    reader: RowReader, text_columns: tuple[str, ...], num_texts: int
) -> Iterator[InputRow]:
    is_checked = False
    for row in reader:
        if not is_checked and reader.columns is not None:
            text_columns = choose_columns(
                reader.columns, text_columns, "", reader.where, _FLAGS
            )
            if len(text_columns) != num_texts:
                raise InputError(
                    f"{reader.where} has the text columns {', '.join(text_columns)},"
                    f" this model takes {_count_texts(num_texts)}: name {num_texts} in"
                    " --text_columns"
                )
            is_checked = True
        texts, problem = (
            ((), row.problem) if row.problem else take_texts(row, text_columns)
        )
        yield InputRow(row.line, texts, problem)
    for note in reader.make_notes():
        logging.warning("%s", note)


def _count_texts(num_texts: int) -> str:
    return "single texts" if num_texts == 1 else "pairs of texts"
