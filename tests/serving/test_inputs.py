"""Rows of every format, and what makes one unusable."""

import io
import json

import pytest

from sweet_jax.serving.inputs import (
    InputRow,
    PassedColumns,
    find_format,
    read_inputs,
)


def read(text: str, input_format: str, num_texts: int = 1, columns=()) -> list:
    """Returns the rows as plain tuples."""
    rows = read_inputs(split(text), input_format, num_texts, columns)
    return [tuple(row)[:3] for row in rows]


def split(text: str) -> io.StringIO:
    """Returns the lines with their ends, as a `LineReader` does."""
    return io.StringIO(text, newline="")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("input_format", "lines"),
    [
        ("text", ["a, b", 'the "c"']),
        ("csv", ["text,id", '"a, b",1', '"the ""c""",2']),
        ("tsv", ["id\ttext", "1\ta, b", '2\tthe "c"']),
        ("jsonl", ['{"text": "a, b"}', '{"id": 1, "text": "the \\"c\\""}']),
    ],
)
def test_every_format_has_the_same_rows(input_format, lines, end):
    first = 1 if input_format in ("text", "jsonl") else 2
    assert read(end.join([*lines, ""]), input_format) == [
        (first, ("a, b",), ""),
        (first + 1, ('the "c"',), ""),
    ]


@pytest.mark.parametrize(
    ("input_format", "text"),
    [
        ("text", "a\tb\n"),
        ("csv", "sentence2,sentence1\nb,a\n"),
        ("tsv", "premise\thypothesis\na\tb\n"),
        ("jsonl", '{"question": "a", "sentence": "b"}\n'),
    ],
)
def test_pairs(input_format, text):
    assert [row[1] for row in read(text, input_format, 2)] == [("a", "b")]


def test_named_columns_are_taken():
    text = "text,title\nlong,short\n"
    assert read(text, "csv", 1, ("title",)) == [(2, ("short",), "")]
    assert read(text, "csv", 2, ("title", "text")) == [(2, ("short", "long"), "")]


@pytest.mark.parametrize(
    ("input_format", "num_texts", "bad", "problem"),
    [
        ("text", 1, "", "is empty"),
        ("text", 1, " \t", "is empty"),
        ("text", 1, "caf\udce9", "is not UTF-8 (byte 0xe9, 'é' in"),
        ("text", 2, "alone", "has 1 text, this model takes two separated by a tab"),
        ("text", 2, "a\tb\tc", "has 3 texts"),
        ("text", 2, "a\t ", "is empty"),
        ("jsonl", 1, '{"text": "half \\ud800"}', "a lone surrogate"),
        ("jsonl", 1, '{"text": "half \\udc80"}', "a lone surrogate"),
        ("jsonl", 1, '{"text": ', "is not JSON"),
        ("jsonl", 1, '{"text": "a", "n": ' + "9" * 5000 + "}", "is not JSON"),
        ("jsonl", 1, "[" * 100_000, "is not JSON"),
        ("jsonl", 1, '["a"]', "is a JSON list, expected an object"),
        ("jsonl", 1, '{"txt": "a"}', "has no column 'text'"),
        ("jsonl", 1, '{"text": null}', "has null as 'text', expected a string"),
        ("jsonl", 1, '{"text": 3}', "has 3 as 'text', expected a string"),
        ("csv", 1, "a,b", "has 2 fields, the header has 1"),
        ("csv", 1, '"a"b', "is malformed"),
        ("csv", 1, "caf\udce9", "is not UTF-8 (byte 0xe9, 'é' in"),
    ],
)
def test_a_bad_row_is_a_row_with_its_problem(input_format, num_texts, bad, problem):
    good = {"text": ["a", "a\tb"][num_texts - 1], "csv": "a"}
    row = good.get(input_format) or json.dumps({"text": "a"})
    head = ["text"] if input_format == "csv" else []
    rows = read("\n".join([*head, row, bad, row]) + "\n", input_format, num_texts)
    line = len(head) + 2
    assert rows[1][:2] == (line, ())
    assert problem in rows[1][2]
    # The rows around it are not touched.
    assert [row[0] for row in rows] == [line - 1, line, line + 1]
    assert rows[0][1] == rows[2][1] != ()


def test_lines_are_counted_through_quoted_fields_and_blank_lines():
    text = 'text\n"one\ntwo"\n\nthree\n'
    assert read(text, "csv") == [(2, ("one\ntwo",), ""), (5, ("three",), "")]
    objects = '\n{"text": "a"}\n\n{"text": "b"}\n'
    assert [row[0] for row in read(objects, "jsonl")] == [2, 4]


def test_a_quote_left_open_does_not_swallow_the_memory():
    long = ["text\n", '"open\n', *["x" * (1 << 20) + "\n"] * 17, "fine\n"]
    rows = list(read_inputs(iter(long), "csv", 1))
    assert rows[0].problem == (
        "is longer than 16,777,216 characters: is a quote left open?; the quoted field"
        " contains lines 2 to 18 (17 lines), which are not read"
    )
    assert rows[-1].texts == ("fine",)


def test_control_characters_are_text():
    assert read("a\x00b\x07\x0c\x1bc\n", "text") == [(1, ("a\x00b\x07\x0c\x1bc",), "")]
    assert read("text\na\x00b\x07\n", "csv") == [(2, ("a\x00b\x07",), "")]


@pytest.mark.parametrize(
    ("input_format", "text", "num_texts", "columns", "message"),
    [
        ("csv", "text,id\n", 1, (), "the input is empty"),
        ("jsonl", "\n\n", 1, (), "the input is empty"),
        (
            "csv",
            "id,memo\n1,a\n",
            1,
            (),
            "no text column with a usual name.*'id' .'1'., 'memo' .'a'.: set --text",
        ),
        ("csv", "text\na\n", 1, ("body",), "no column 'body'; its columns are 'text'"),
        ("csv", "text\na\n", 1, ("text", "b"), "takes single texts, so name 1"),
        ("csv", "sentence1,sentence2\na,b\n", 1, (), "this model takes single texts"),
        ("jsonl", '{"text": "a"}\n', 2, (), "this model takes pairs of texts"),
        ("csv", '"a"b,c\n1,2\n', 1, (), "line 1, the header, is malformed"),
    ],
)
def test_a_wrong_input_is_refused_at_once(
    input_format, text, num_texts, columns, message
):
    with pytest.raises(ValueError, match=message) as error:
        read_inputs(split(text), input_format, num_texts, columns)
    assert "\n" not in str(error.value)


def test_columns_of_the_training_are_read_where_they_are_there():
    text = "text,memo\nlong,short\n"
    rows = read_inputs(split(text), "csv", 1, remembered=("memo",))
    assert [row.texts for row in rows] == [("short",)]
    rows = read_inputs(split(text), "csv", 1, ("text",), remembered=("memo",))
    assert [row.texts for row in rows] == [("long",)]
    rows = read_inputs(split(text), "csv", 1, remembered=("other",))
    assert [row.texts for row in rows] == [("long",)]


@pytest.mark.parametrize("input_format", ["csv", "tsv", "jsonl"])
def test_columns_are_passed_on_as_they_are(input_format):
    rows = [{"id": "007", "text": "a film", "": "x", "note": "=1"}]
    text = json.dumps(rows[0]) + "\n"
    if input_format != "jsonl":
        separator = "," if input_format == "csv" else "\t"
        lines = (rows[0], rows[0].values())
        text = "".join(separator.join(line) + "\n" for line in lines)
    for keep, kept in (
        ((), None),
        (("note",), {"note": "=1"}),
        (("all",), {"id": "007", "text": "a film", "note": "=1"}),
    ):
        passed = PassedColumns("id", keep)
        (row,) = read_inputs(split(text), input_format, 1, passed=passed)
        assert (row.row_id, row.kept, row.texts) == ("007", kept, ("a film",))


def test_a_row_whose_values_cannot_be_passed_on_is_a_bad_row():
    lines = [
        '{"text": "a", "id": 1, "n": null}',
        '{"text": "b", "n": 2}',
        '{"text": "c", "id": 3}',
        '{"text": "d", "id": 4, "n": NaN}',
        '{"text": "e", "id": [1e999], "n": 5}',
        '{"text": "f", "id": {"a": [true]}, "n": "6"}',
    ]
    passed = PassedColumns("id", ("n",))
    rows = list(read_inputs(split("\n".join(lines)), "jsonl", 1, passed=passed))
    assert [row.problem for row in rows] == [
        "",
        "has no column 'id'",
        "",
        *["has a value that JSON cannot hold (NaN, infinity, or nested deeply)"] * 2,
        "",
    ]
    assert [row.kept for row in rows if not row.problem] == [
        {"n": None}, {"n": None}, {"n": "6"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("passed", "message"),
    [
        (
            PassedColumns("no"),
            "^--id_column='no': x has no such column; its columns are",
        ),
        (
            PassedColumns("", ("text", "no")),
            "^--keep_columns='no': x has no such .*'id'",
        ),
    ],
)
def test_a_column_to_pass_on_must_be_there(passed, message):
    with pytest.raises(ValueError, match=message):
        read_inputs(split("text,id\na,1\n"), "csv", 1, where="x", passed=passed)


def test_rows_are_read_one_at_a_time():
    def endless():
        while True:
            yield "a"

    rows = read_inputs(endless(), "text", 1)
    assert next(rows) == InputRow(1, ("a",))
    assert next(rows) == InputRow(2, ("a",))


def test_formats_are_found_by_the_ending():
    assert find_format("A.TSV", "") == "tsv"
    assert find_format("-", "") == "text"
    assert find_format("reviews.gz", "csv") == "csv"
    with pytest.raises(ValueError, match=r"its ending is none of .txt, .csv"):
        find_format("reviews.gz", "")
    with pytest.raises(ValueError, match="--format=xml: allowed are text, csv"):
        find_format("reviews.txt", "xml")
