"""Rows of files arrive as written; what is wrong with them is said in one line."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.data.sources import load_task
from sweet_jax.settings.fields import DataSettings

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
GOOD = [("a fine film", "pos"), ("a bad film", "neg"), ("fine, fine", "pos")]


def write_jsonl(path, rows):
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    # Bytes: text mode would change line ends within strings on some systems.
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def make_good(folder, name="train.csv", rows=GOOD):
    return write_csv(folder / name, ["text", "label"], rows)


def load_files(train, test, **fields):
    return load_task(
        DataSettings(task="file", train_file=str(train), test_file=str(test), **fields)
    )


# Everything UTF-8 can hold, which leaves lone surrogates out.
file_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(
    str.strip
)
file_rows = st.lists(
    st.tuples(file_texts, file_texts, st.sampled_from(["no", "yes"])), max_size=6
).map(lambda rows: [*rows, ("a", "b", "yes"), ("c", "d", "no")])


@given(file_rows)
@settings(max_examples=40)
def test_csv_and_jsonl_keep_every_text(tmp_path_factory, rows):
    """Quotes, separators, line breaks and U+2028 included."""
    folder = tmp_path_factory.mktemp("rows")
    write_csv(folder / "train.csv", ["premise", "hypothesis", "label"], rows)
    columns = ("premise", "hypothesis", "label")
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    write_jsonl(folder / "test.jsonl", objects)
    raw = load_files(folder / "train.csv", folder / "test.jsonl")
    assert raw.label_names == ("no", "yes")
    for split in ("train", "test"):
        rows_read = raw.splits[split]
        assert rows_read.texts == tuple(row[0] for row in rows)
        assert rows_read.pairs == tuple(row[1] for row in rows)
        assert [raw.label_names[i] for i in rows_read.labels] == [r[2] for r in rows]
        assert rows_read.row_ids.tolist() == list(range(len(rows)))


def test_tsv_knows_no_quotes(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text('sentence\tlabel\n"a half-open quote\t1\nwith "quotes" in\t0\n')
    raw = load_files(path, path)
    assert raw.splits["test"].texts == ('"a half-open quote', 'with "quotes" in')


def test_only_line_feeds_end_a_line_of_jsonl(tmp_path):
    """JSON may hold other line separators unescaped within its strings."""
    rows = [{"text": f"one{c}two", "label": i} for i, c in enumerate("\u2028\x85")]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    read = load_files(path, path).splits["train"]
    assert read.texts == ("one\u2028two", "one\x85two")


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\n\r\ngood,1\r\n\r\nbad,0\r\n")
    assert load_files(path, path).splits["train"].texts == ("good", "bad")
    path = tmp_path / "train.jsonl"
    path.write_text('\n{"text": "good", "label": 1}\n\n{"text": "bad", "label": 0}\n\n')
    assert load_files(path, path).splits["train"].texts == ("good", "bad")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 2], ("2", "9", "10")),
        (["10", 9, 2], ("2", "9", "10")),
        ([1, -1, 0], ("-1", "0", "1")),
        (["b", "a", "10"], ("10", "a", "b")),
        (["01", "1", "2"], ("01", "1", "2")),
    ],
)
def test_label_names_are_kept_in_order(tmp_path, labels, names):
    rows = [{"text": "x", "label": label} for label in labels]
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    raw = load_files(path, path)
    assert raw.label_names == names
    read = [raw.label_names[i] for i in raw.splits["train"].labels]
    assert read == [str(label) for label in labels]
    assert raw.splits["train"].labels.dtype == np.int32


@pytest.mark.parametrize(
    ("columns", "texts", "pairs"),
    [
        (("sentence", "label"), "sentence", None),
        (("label", "text", "id"), "text", None),
        (("sentence2", "sentence1", "label"), "sentence1", "sentence2"),
        (("premise", "hypothesis", "label"), "premise", "hypothesis"),
        (("question", "sentence", "label"), "question", "sentence"),
        (("question1", "question2", "label"), "question1", "question2"),
    ],
)
def test_text_columns_are_found_by_their_usual_names(tmp_path, columns, texts, pairs):
    rows = [[f"{column} {i}" for column in columns] for i in range(2)]
    path = write_csv(tmp_path / "train.csv", columns, rows)
    read = load_files(path, path).splits["train"]
    assert read.texts == (f"{texts} 0", f"{texts} 1")
    assert read.pairs == (None if pairs is None else (f"{pairs} 0", f"{pairs} 1"))


def test_named_columns_are_taken(tmp_path):
    rows = [["1", "up", "left"], ["2", "down", "right"]]
    path = write_csv(tmp_path / "train.csv", ["stars", "body", "title"], rows)
    columns = {"text_columns": ("title", "body"), "label_column": "stars"}
    read = load_files(path, path, **columns).splits["train"]
    assert (read.texts, read.pairs) == (("left", "right"), ("up", "down"))


def test_the_validation_file_becomes_a_split(tmp_path):
    train = make_good(tmp_path)
    settings = DataSettings(
        task="file", train_file=str(train), validation_file=str(train)
    )
    assert set(load_task(settings).splits) == {"train", "validation"}


def test_an_empty_text_is_accepted_where_asked(tmp_path):
    path = make_good(tmp_path, rows=[("", "pos"), ("  ", "neg")])
    raw = load_files(path, path, allow_empty_text=True)
    assert raw.splits["train"].texts == ("", "  ")


BAD_FILES = {
    "a missing column": (
        "train.csv",
        b"text,stars\ngood,1\n",
        r"train\.csv has no column 'label' and no other usual name for labels; its"
        r" columns are 'text' \('good'\), 'stars' \('1'\): set"
        r" --config\.data\.text_columns=text --config\.data\.label_column=stars$",
    ),
    "a name that nobody would type": (
        "train.csv",
        b"text," + b"x" * 200_000 + b"\ngood,1\n",
        r"its columns are 'text' \('good'\), 'x{60,100}\.\.\.' \('1'\): set"
        r" --config\.data\.text_columns=text --config\.data\.label_column=NAME$",
    ),
    "no text column": (
        "train.csv",
        b"memo,label\ngood,1\n",
        r"train\.csv has no text column with a usual name; its columns are 'memo'"
        r" \('good'\), 'label' \('1'\): set --config\.data\.text_columns=memo"
        r" --config\.data\.label_column=label$",
    ),
    "an object without a column": (
        "train.jsonl",
        b'{"text": "a", "label": 1}\n{"text": "b"}\n',
        r"train\.jsonl line 2 has no column 'label'",
    ),
    "an empty text": (
        "train.csv",
        b'text,label\n"two\nlines",pos\n" ",neg\n',
        r"train\.csv line 4 has an empty text: .*allow_empty_text=True",
    ),
    "an empty second text": (
        "train.jsonl",
        b'{"sentence1": "a", "sentence2": "b", "label": 0}\n\n'
        b'{"sentence1": "a", "sentence2": "", "label": 1}\n',
        r"train\.jsonl line 3 has an empty text",
    ),
    "an empty csv": ("train.csv", b"", r"train\.csv is empty"),
    "a header alone": ("train.csv", b"text,label\n", r"train\.csv is empty"),
    "an empty jsonl": ("train.jsonl", b"\n\n", r"train\.jsonl is empty"),
    "not UTF-8": (
        "train.csv",
        b"text,label\ngood,1\ncaf\xe9,0\n",
        r"train\.csv line 3 is not UTF-8 \(byte 0xe9, 'é' in Latin-1 and"
        r" Windows-1252\): save the file as UTF-8",
    ),
    "UTF-16": (
        "train.csv",
        "text,label".encode("utf-16"),
        r"train\.csv is in UTF-16: save it as UTF-8",
    ),
    "a ragged row": (
        "train.csv",
        b'text,label\n"two\nlines",pos\ngood, bad,neg\n',
        r"train\.csv line 4 has 3 fields, the header has 2",
    ),
    "a short row": (
        "train.tsv",
        b"text\tlabel\ngood\n",
        "line 2 has 1 field, the header has 2",
    ),
    "an open quote": (
        "train.csv",
        b'text,label\ngood,1\n"bad,0\nmore,1\n',
        r"train\.csv line 3 leaves a quote open: .*lines 3 to 4 \(2 lines\)",
    ),
    "one class only": (
        "train.csv",
        b"text,label\na,pos\nb,pos\n",
        r"train\.csv has rows of only one class, 'pos'",
    ),
    "not an object": (
        "train.jsonl",
        b'{"text": "a", "label": 1}\n["b", 0]\n',
        r"train\.jsonl line 2 is a JSON list, expected an object",
    ),
    "not JSON": ("train.jsonl", b'{"text": "a"\n', r"train\.jsonl line 1 is not JSON"),
    "a text that is none": (
        "train.jsonl",
        b'{"text": 3, "label": 1}\n',
        r"train\.jsonl line 1 has 3 as 'text', expected a string",
    ),
    "a label that is a fraction": (
        "train.jsonl",
        b'{"text": "a", "label": 0.5}\n',
        r"train\.jsonl line 1: label 0\.5 is not allowed",
    ),
    "a label that is null": (
        "train.jsonl",
        b'{"text": "a", "label": null}\n',
        r"train\.jsonl line 1: label null is not allowed",
    ),
    "an empty label": ("train.csv", b"text,label\na,\n", 'line 2: label "" is not'),
    "an unknown extension": (
        "train.txt",
        b"good\n",
        r"data\.train_file=.*train\.txt: unknown extension '\.txt', allowed are"
        r" \.jsonl, \.csv, \.tsv",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_one_clear_line(tmp_path, case):
    name, content, message = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        load_files(tmp_path / name, tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_label_that_training_lacks_is_an_error(tmp_path, split):
    train = make_good(tmp_path)
    other = make_good(tmp_path, "other.csv", [("good", "pos"), ("so so", "meh")])
    files: dict[str, Any] = {"test_file": str(train), f"{split}_file": str(other)}
    message = r"other\.csv line 3 has the label 'meh'.*lack; they have neg, pos"
    with pytest.raises(ValueError, match=message):
        load_task(DataSettings(task="file", train_file=str(train), **files))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"data\.test_file=.*nowhere\.csv cannot be"):
        load_files(make_good(tmp_path), tmp_path / "nowhere.csv")


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path):
    (tmp_path / "test.csv").mkdir()
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_files(make_good(tmp_path), tmp_path / "test.csv")


@pytest.mark.parametrize("fields", [{}, {"test_file": "a.csv"}])
def test_files_that_are_not_given_are_an_error(fields):
    with pytest.raises(ValueError, match=r"rows to train on: set data\.train_file"):
        load_task(DataSettings(task="file", **fields))


def test_one_file_is_enough_and_what_was_found_is_kept(tmp_path):
    rows = [[str(i), f"a film of {i} acts", "abc"[i % 3]] for i in range(30)]
    path = write_csv(tmp_path / "all.csv", ["id", "Message", "category"], rows)
    raw = load_task(DataSettings(task="file", train_file=str(path)))
    assert list(raw.splits) == ["train"]
    assert raw.columns == (("Message",), "category", False)
    assert raw.notes == ()
    rows = [row[1:] for row in rows]
    path = write_csv(tmp_path / "two.csv", ["what", "kind"], rows)
    raw = load_task(DataSettings(task="file", train_file=str(path)))
    assert raw.columns == (("what",), "kind", True)
    assert raw.notes == (
        "two.csv has no columns with usual names for texts and labels: they were chosen"
        " by content (texts in 'what', labels in 'kind')",
    )


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no ../shared/data beside the clone")
@pytest.mark.parametrize(
    ("task", "sizes", "has_pairs"),
    [
        ("sst2", {"train": 6920, "validation": 872, "test": 1821}, False),
        ("rte", {"train": 2490, "validation": 277}, True),
        ("cola", {"train": 8551, "validation": 1043}, False),
    ],
)
def test_real_files_are_read_whole(task, sizes, has_pairs):
    files: dict[str, Any] = {
        f"{s}_file": str(REAL_DATA / task / f"{s}.jsonl") for s in sizes
    }
    raw = load_task(DataSettings(task="file", **files))
    assert {split: len(rows) for split, rows in raw.splits.items()} == sizes
    assert raw.label_names == ("0", "1")
    assert (raw.splits["train"].pairs is not None) == has_pairs


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "f1"])
def test_the_metric_can_be_named(tmp_path, metric):
    good = make_good(tmp_path)
    assert load_files(good, good).task.metric == "accuracy"
    assert load_files(good, good, metric=metric).task.metric == metric
