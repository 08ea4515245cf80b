"""Lines of answers: valid JSON, one line each, nothing that a spreadsheet runs."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.serving.answers import (
    CSV_HEADER,
    AnswerError,
    AnswerRow,
    _make_answer,
    format_csv,
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


def read_cell(text: str) -> str:
    (row,) = csv.DictReader(io.StringIO(CSV_HEADER + text, newline=""), strict=True)
    assert (row["line"], row["probability"]) == ("7", "0.75")
    assert (row["exit"], row["layers"]) == ("1", "2")
    return row["label"]


@given(label=LABELS)
def test_a_line_of_json_is_one_line_anywhere_and_gives_the_label_back(label):
    text = format_jsonl([make_answer(label)])
    assert text.encode().decode() == text
    assert text.splitlines(keepends=True) == [text]
    assert text[:-1].isprintable()
    assert json.loads(text) == make_answer(label)._asdict()


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
