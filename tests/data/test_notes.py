"""Rows that are odd but no error are counted, and the first of them is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.data import notes
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.settings.from_config import from_config_dict


def locate(i: int) -> str:
    return f"line {i + 2}"


def write_rows(path, rows):
    path.write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in rows))
    return str(path)


def make_notes(tmp_path, train, test, validation=(), **fields):
    data = {
        "task": "file",
        "train_file": write_rows(tmp_path / "train.csv", train),
        "test_file": write_rows(tmp_path / "test.csv", test),
        **fields,
    }
    if validation:
        data["validation_file"] = write_rows(tmp_path / "validation.csv", validation)
    settings = from_config_dict({"data": data})
    return make_splits(load_task(settings.data), settings).notes


TRAIN = [(f"train {i}", "no" if i % 2 else "yes") for i in range(40)]
TEST = [(f"test {i}", "no" if i % 2 else "yes") for i in range(10)]
VALIDATION = [(f"validation {i}", "no" if i % 2 else "yes") for i in range(10)]


def is_about_rows(note):
    return "(data." not in note and "never trained on" not in note  # numbers of rows


def test_plain_rows_have_no_notes(tmp_path):
    found = make_notes(tmp_path, TRAIN, TEST, VALIDATION)
    assert not any(map(is_about_rows, found))


def test_test_rows_that_are_training_rows_are_counted(tmp_path):
    test = [*TEST, ("train 7", "no"), ("Train  8", "yes")]
    found = make_notes(tmp_path, TRAIN, test, VALIDATION)
    assert (
        "overlap: 2 of 12 test rows (16.7 %) are also training rows, compared by their"
        " texts without case and blanks (first: test.csv line 12, which is train.csv"
        " line 9)"
    ) in found


def test_overlaps_with_validation_rows_are_counted(tmp_path):
    validation = [*VALIDATION, ("train 7", "no"), ("test 1", "no")]
    found = [n for n in make_notes(tmp_path, TRAIN, TEST, validation) if "lap" in n]
    assert [note.split(", compared")[0] for note in found] == [
        "overlap: 1 of 10 test rows (10.0 %) are also calibration rows",
        "overlap: 1 of 12 calibration rows (8.3 %) are also training rows",
    ]


def test_a_training_row_that_is_held_out_is_compared_too(tmp_path):
    """Without validation rows calibration takes training rows, repeats among them."""
    found = make_notes(tmp_path, TRAIN * 2, TEST, calibration_examples=1000)
    assert any("calibration rows" in n and "are also training" in n for n in found)


def test_one_text_with_two_labels_is_noted(tmp_path):
    train = [*TRAIN, ("train 3", "yes")]
    found = make_notes(tmp_path, train, TEST, VALIDATION)
    assert (
        "2 of 41 training rows (4.9 %) have a text that also occurs with another"
        " label (first: 'no' at train.csv line 5, 'yes' at train.csv line 42)"
    ) in found


def test_repeats_are_noted_beyond_a_tenth():
    keys = [f"row {i}" for i in range(9)]
    assert notes.describe_repeats([*keys, "row 0"], "training", locate) == []
    assert notes.describe_repeats([*keys, "row 0", "row 1"], "training", locate) == [
        "2 of 11 training rows (18.2 %) repeat the text of an earlier row (first: line"
        " 11)"
    ]


@pytest.mark.parametrize("text", ["nan", "None", " NULL ", "N/A", "<NA>", "#N/A"])
def test_texts_that_stand_for_missing_ones(tmp_path, text):
    found = make_notes(tmp_path, [*TRAIN, (text, "no")], TEST, VALIDATION)
    assert (
        "1 of 41 rows (2.4 %) have a text such as 'nan', 'None' or 'null': is it"
        " missing? (first: train.csv line 42)"
    ) in found


def test_damaged_texts():
    texts = ["fine", "caf\ufffd", "cafÃ©", "itâ€™s"]
    found = notes.describe_texts(texts, None, locate)
    assert [note.split(" ")[:3] for note in found] == [
        ["1", "of", "4"],
        ["2", "of", "4"],
    ]
    assert "U+FFFD" in found[0]
    assert found[0].endswith("(first: line 3)")
    assert "Windows-1252" in found[1]
    assert notes.describe_texts(["a", "b"], ["c", "nan"], locate)[0].endswith("3)")


@pytest.mark.parametrize(
    "labels",
    [
        ("pos", "Pos"),
        ("pos", "pos "),
        ("pos", "\u200bpos"),
        ("é", "e\u0301"),
        ("1", "1.0"),
        ("7", "007"),
        ("0", "-0"),
    ],
)
def test_labels_that_a_person_takes_for_the_same(labels):
    found = notes.describe_labels([labels[0]] * 3 + [labels[1], "other"], locate)
    assert len(found) == 1
    assert f"the labels {labels[1]!r} (1), {labels[0]!r} (3) are" in found[0]
    assert found[0].endswith("(first: line 5)")


def test_labels_that_differ_are_left_alone():
    labels = ["1", "2", "-1", "a", "b", "1a", "1.5", "9" * 20, "9" * 19 + "8"] * 2
    assert notes.describe_labels(labels, locate) == []


@pytest.mark.parametrize("label", ["nan", "None", "NULL", "NA"])
def test_labels_that_stand_for_missing_ones(label):
    (note,) = notes.describe_labels(["0", "1", label, "0"], locate)
    assert note.startswith(f"1 of 4 rows (25.0 %) have the label {label!r}")
    assert "(first: line 4)" in note


def test_a_column_of_ids_as_labels():
    labels = [f"id{i}" for i in range(30)] + ["id0"]
    (note,) = notes.describe_labels(labels, locate)
    assert note.startswith(
        "29 of 30 classes have one training row only (first: line 3)"
    )


def test_classes_that_a_set_lacks(tmp_path):
    found = make_notes(tmp_path, TRAIN, TEST[::2], VALIDATION)
    assert "no test row has the class 'no' (1 of 2 classes)" in found


def test_cut_texts():
    assert notes.describe_cuts(10, 100, "test", 32) == []
    (note,) = notes.describe_cuts(11, 100, "test", 32)
    assert note.startswith("11 of 100 test rows (11.0 %) are longer than 32 tokens")


words = st.text(st.sampled_from("aB \t\n"), max_size=4)


@given(st.lists(st.tuples(words, words), max_size=8))
def test_overlap_equals_a_slow_comparison(rows):
    def is_same(a, b):
        return all(
            x.lower().split() == y.lower().split() for x, y in zip(a, b, strict=True)
        )

    known, asked = rows[::2], rows[1::2]
    expected = sum(any(is_same(a, k) for k in known) for a in asked)
    keys = [
        notes.list_keys([t for t, _ in part], [p for _, p in part])
        for part in (asked, known)
    ]
    found = notes.describe_overlap(keys[0], "test", keys[1], "x", locate, locate)
    if expected:
        assert found[0].startswith(f"overlap: {expected} of {len(asked)} test rows")
    else:
        assert found == []


@given(st.text(max_size=12))
def test_folding_a_label_is_idempotent(label):
    once = notes.fold_label(label)
    assert notes.fold_label(once) == once or np.isfinite(float(once))


def test_few_test_rows_are_said_to_be_rough():
    (note,) = notes.describe_precision(8)
    # 1.96 times the square root of a quarter of 1 / 8.
    assert "scores on 8 test rows are rough" in note
    assert "within 0.35" in note
    assert notes.describe_precision(97) == []
