"""Columns are named, found without a doubt, or asked for with the line to type."""

import ast
import re
import shlex

import pytest

from sweet_jax.data.find_columns import (
    LONGEST_NAME,
    Columns,
    find_columns,
    format_flag,
)
from sweet_jax.settings.config_file import quote_names

PROSE = [f"some words {i} of a text" for i in range(12)]
KINDS = ["spam", "ham", "eggs"] * 4
IDS = [f"a{i}" for i in range(12)]


def find(asked=Columns(), **values):  # noqa: B008
    return find_columns(values, "x.csv", asked)[:2]


@pytest.mark.parametrize("text", ["text", "Message", "REVIEW", "body", "tweet"])
@pytest.mark.parametrize("label", ["label", "Category", "CLASS", "intent"])
def test_usual_names_are_found_in_any_case_whatever_they_hold(text, label):
    values = {"id": IDS, label: IDS, "other": PROSE, text: KINDS}
    assert find(**values) == ((text,), label)


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (("sentence1", "sentence2"), ("sentence1", "sentence2")),
        (("Sentence", "Question"), ("Question", "Sentence")),
        (("hypothesis", "premise"), ("premise", "hypothesis")),
    ],
)
def test_pairs_come_before_single_texts(names, texts):
    assert find(label=KINDS, **dict.fromkeys(names, PROSE)) == (texts, "label")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"what": PROSE, "kind": KINDS}, (("what",), "kind")),
        ({"kind": [0, 1] * 6, "what": PROSE}, (("what",), "kind")),
        ({"text": PROSE, "kind": KINDS}, (("text",), "kind")),
        ({"what": PROSE, "label": IDS}, (("what",), "label")),
        (
            {"kind": KINDS, "what": ["これは文です" + i for i in IDS]},
            (("what",), "kind"),
        ),
    ],
)
def test_two_columns_are_told_apart_by_what_they_hold(values, found):
    columns = find_columns(values, "x.csv")
    assert columns == (*found, True)
    # What is named or called as usual needs no look inside.
    again = find_columns(values, "x.csv", Columns(*found))
    assert again == (*found, False)


AMBIGUOUS = {
    "two texts": {"title": PROSE, "body": PROSE, "label": KINDS},
    "the same name in two cases": {"text": PROSE, "Text": PROSE, "label": KINDS},
    "a pair and a text": {
        "sentence1": PROSE, "sentence2": PROSE, "text": PROSE, "label": KINDS,
    },
    "a title and a description": {
        "class": KINDS, "title": PROSE, "description": PROSE,
    },
    "two labels": {"text": PROSE, "category": KINDS, "intent": KINDS},
    "two labels and nothing else": {"category": KINDS, "label": KINDS},
    "two columns of few values": {"what": KINDS, "kind": KINDS},
    "two columns of prose": {"what": PROSE, "why": PROSE},
    "a text and an id": {"text": PROSE, "number": IDS},
    "an id and a kind": {"number": IDS, "kind": KINDS},
    "dates and a kind": {
        "when": [f"2024-01-{i} 10:00" for i in range(12)], "kind": KINDS,
    },
    "fractions": {"text": PROSE, "value": [f"{i / 7}" for i in range(12)]},
    "values of JSON": {"text": PROSE, "value": [0.5, 1.5] * 6},
    "missing values": {"text": PROSE, "value": ["", "a"] * 6},
    "three columns": {"what": PROSE, "kind": KINDS, "more": KINDS},
    "a text, a kind and an id": {"text": PROSE, "kind": KINDS, "number": IDS},
    "no header": {"some words of a text": PROSE, "spam": KINDS},
    "no header, a rare class": {"one more of these texts": PROSE, "lone": KINDS},
    "blanks": {"text": PROSE, " label": KINDS},
    "one column": {"text": PROSE},
    "another one column": {"what": PROSE},
    "no name": {"text": PROSE, "": KINDS},
    "nothing at all": {"text": [], "kind": []},
}  # fmt: skip


# Where no column is likely to hold one of the two.
NO_WAY_OUT = {
    "two columns of prose", "no header", "one column", "another one column", "no name",
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_nothing_is_guessed_and_the_line_to_type_leads_out(name):
    values = AMBIGUOUS[name]
    with pytest.raises(ValueError, match=r"^x\.csv has ") as raised:
        find_columns(values, "x.csv")
    line = str(raised.value)
    assert "\n" not in line
    for column, found in values.items():
        assert repr(column) in line
        assert not any(found) or repr(next(filter(None, found)))[:20] in line
    typed = re.search(r": set (--config.*?)( \(.*\))?$", line)
    assert typed is not None
    flags = dict(flag.split("=", 1) for flag in shlex.split(typed[1]))
    assert list(flags) == ["--config.data.text_columns", "--config.data.label_column"]
    texts, label = flags.values()
    assert ("NAME" in (texts, label)) == (name in NO_WAY_OUT)
    if name not in NO_WAY_OUT:
        names = read_flag(f"--config.data.text_columns={texts}")
        columns = Columns(names, label)
        assert find_columns(values, "x.csv", columns)[:2] == (names, label)


def read_flag(typed):
    """Returns the names that the command line makes of a flag."""
    (quoted,) = quote_names([typed])
    return ast.literal_eval(quoted.partition("=")[2])


def test_what_is_asked_goes_before_what_is_remembered_and_that_before_names():
    values = {"text": PROSE, "memo": PROSE, "label": KINDS, "kind": KINDS}
    remembered = Columns(("memo",), "kind")
    assert find_columns(values, "x", remembered=remembered)[:2] == (("memo",), "kind")
    asked = Columns(("text",))
    found = find_columns(values, "x", asked, remembered)
    assert found[:2] == (("text",), "kind")
    # A table of other columns is no error: it is as if nothing was remembered.
    other = {"text": PROSE, "label": KINDS}
    assert find_columns(other, "x", remembered=remembered)[:2] == (("text",), "label")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Columns(("memo",)), "no column 'memo'; .* 'text' .*set .*=text .*=label"),
        (Columns((), "memo"), "no column 'memo'; .*=text --config.*=label$"),
        (Columns(("a", "b"), "c"), "no column 'a' and no column 'b' and no column 'c'"),
        (Columns(("text",), "text"), "is the column of labels"),
        (Columns(("text", "text")), "names 'text' twice"),
        (Columns(("text", "label", "id"), "kind"), "names 3 columns: allowed are one"),
    ],
)
def test_columns_that_are_named_must_be_there_and_differ(asked, message):
    values = {"text": PROSE, "label": KINDS, "id": IDS, "kind": KINDS}
    with pytest.raises(ValueError, match=message):
        find_columns(values, "x.csv", asked)


def test_labels_are_not_looked_for_where_none_are_needed():
    values = {"text": PROSE, "category": KINDS, "intent": KINDS}
    found = find_columns(values, "x", Columns(label="absent"), needs_label=False)
    assert found == (("text",), "", False)
    with pytest.raises(ValueError, match=r": set --config\.data\.text_columns=memo$"):
        find_columns({"memo": PROSE, "id": IDS}, "x", needs_label=False)


@pytest.mark.parametrize("name", ["x" * (LONGEST_NAME + 1), "half \ud800"])
def test_a_name_that_no_model_folder_could_store_is_refused(name):
    values = {name: PROSE, "label": KINDS}
    with pytest.raises(ValueError, match="has a name of more than 1,000 characters"):
        find_columns(values, "x.csv", Columns((name,), "label"))


@pytest.mark.parametrize("names", [("a",), ("my text",), ("a, b", "c"), (" a ", 'b"')])
def test_a_flag_reads_back_as_the_names(names):
    (typed,) = shlex.split(format_flag("--config.data.text_columns", names))
    assert read_flag(typed) == names
