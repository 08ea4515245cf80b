"""Lines of answers: valid JSON, one line each, nothing that a spreadsheet runs."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.serving.answers import (
    AnswerError,
    AnswerRow,
    CsvFormat,
    _make_answer,
    format_jsonl,
)
from sweet_jax.serving.classifier import Prediction
from sweet_jax.serving.inputs import InputRow

# What spreadsheets and readers of lines treat in their own ways.
LABELS = st.text(
    st.sampled_from("=+-@\t\r\n \"',;a1\uff1d\x00\x1b\x85\u2028\ud800\ufeffé😀")
    | st.characters(exclude_categories=[]),
    max_size=8,
)


def make_answer(label: str) -> AnswerRow:
    return AnswerRow(7, label, 0.75, 1, 2, {label: 0.75, "other": 0.25})


def format_csv(answers, formulas="escape", **fields) -> str:
    names = tuple(answers[0].probabilities)
    written = CsvFormat(names, formulas=formulas, **fields)
    return written.format_header() + written.format_rows(answers)


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def read_cell(text: str) -> str:
    header, row = read_csv(text)
    assert header[:5] == ["line", "label", "probability", "exit", "layers"]
    assert (row[0], row[2:6]) == ("7", ["0.75", "1", "2", "0.75"])
    return row[1]


@given(label=LABELS)
def test_a_line_of_json_is_one_line_anywhere_and_gives_the_label_back(label):
    text = format_jsonl([make_answer(label)])
    assert text.encode().decode() == text
    assert text.splitlines(keepends=True) == [text]
    assert text[:-1].isprintable()
    fields = make_answer(label)._asdict()
    assert json.loads(text) == {
        name: fields[name] for name in fields if name not in ("row_id", "kept")
    }


@given(label=LABELS)
def test_no_cell_of_a_csv_begins_as_a_formula_and_labels_come_back(label):
    text = format_csv([make_answer(label)])
    cell = read_cell(text)
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", label):
        assert cell == label
        return
    # As programs read it that separate at commas, semicolons, tabs or lines.
    for part in re.split("[;,\t\r\n]", cell):
        assert not re.match(
            r"""[\s\x00-\x1f"']*[-=+@\uff0b\uff0d\uff1d\uff20]""", part
        ) or (part.startswith("'"))
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")
    # The rule of docs/predict.md, in reverse.
    sign = r"""(?=[\s\x00-\x1f\ufeff"']*[-=+@\uff0b\uff0d\uff1d\uff20])"""
    back = re.sub(rf"(?:\A|(?<=[;,\t\r\n]))'{sign}|\A'(?=[\t\r\n])", "", cell)
    assert back == label.encode("utf-8", "backslashreplace").decode()


@given(label=LABELS)
def test_formulas_are_kept_on_demand(label):
    cell = read_cell(format_csv([make_answer(label)], "keep"))
    assert cell == label.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize(
    ("label", "cell"),
    [
        ("positive", "positive"),
        ("non-fiction", "non-fiction"),
        ("a = b", "a = b"),
        ("'quoted'", "'quoted'"),
        ("=1+1", "'=1+1"),
        ("-1", "-1"),
        ("+2.5", "+2.5"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ('"=1', "'\"=1"),
        ("'=1", "''=1"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("a;=1", "a;'=1"),
        ("a\n+1", "a\n'+1"),
        ("\uff1d1", "'\uff1d1"),
    ],
)
def test_an_apostrophe_stands_where_a_formula_could_begin(label, cell):
    assert read_cell(format_csv([make_answer(label)])) == cell


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(value):
    prediction = Prediction("a", (value, 0.5), 0, 1)
    with pytest.raises(AnswerError, match=r"^line 3 has no answer: .* weights"):
        _make_answer(("a", "b"), InputRow(3, ("text",)), prediction)
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_jsonl([make_answer("a")._replace(probability=value)])


@given(label=LABELS, name=LABELS, value=LABELS)
def test_no_cell_of_a_header_or_a_kept_column_begins_as_a_formula(label, name, value):
    answer = make_answer(label)._replace(row_id=value, kept={name: value})
    header, row = read_csv(format_csv([answer], has_id=True, kept=(name,)))
    assert header[:2] == ["line", "id"]
    assert len(header) == len(row) == len(set(header))
    for cell in (*header, row[1], row[-1]):
        if not re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", cell):
            assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")


def test_kept_columns_stand_beside_the_answer_under_names_of_their_own():
    kept = {"label": "a", "p_x": 3, "date": None, "tags": ["b"]}
    answer = make_answer("x")._replace(row_id="007", kept=kept)
    header, row = read_csv(format_csv([answer], has_id=True, kept=tuple(kept)))
    assert dict(zip(header, row, strict=True)) == {
        "line": "7", "id": "007", "label": "x", "probability": "0.75", "exit": "1",
        "layers": "2", "p_x": "0.75", "p_other": "0.25", "input_label": "a",
        "input_p_x": "3", "date": "", "tags": '["b"]',
    }  # fmt: skip
    found = json.loads(format_jsonl([answer], has_id=True))
    assert list(found) == [
        "line", "id", "label", "probability", "exit", "layers", "probabilities",
        "columns",
    ]  # fmt: skip
    assert (found["id"], found["columns"]) == ("007", kept)


def test_a_column_that_the_first_row_lacks_has_no_place_in_a_csv():
    answer = make_answer("x")._replace(kept={"new": 1})
    with pytest.raises(AnswerError, match=r"^line 7 has the column 'new', which the"):
        format_csv([answer], kept=("old",))
