"""One reader of rows: against a plain one, in any chunks, for training and predict."""

import csv
import gzip
import io
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweet_jax.data.lines import LineReader, RowsError
from sweet_jax.data.rows import Row, RowReader
from sweet_jax.data.sources import load_task
from sweet_jax.serving.inputs import read_inputs
from sweet_jax.settings.fields import DataSettings

FORMATS = ("csv", "tsv", "jsonl")
# What files of people hold, good and bad, and what a reader may trip over.
PIECES = (
    *("text", "label", "a", "pos", ",", "\t", ";", '"', '""', " ", "é", "😀", "\u2028"),
    *("\n", "\r\n", "\r", "\n\n", "\x00", "\ufeff", "\x85", "\x0c", "{", "}", "[", ":"),
    *('{"text": "a", "label": 1}\n', '{"text": "b", "text": "c"}\n', "NaN", "null"),
    *('"text","label"\n', '"a\nb",pos\n', "a,pos\n", "a\tpos\n", "\\ud800", "9" * 40),
)
file_bytes = st.lists(
    st.one_of(
        st.sampled_from(PIECES).map(str.encode),
        st.sampled_from([b"\xe9", b"\xff", b"\xed\xa0\x80", b"\x1f\x8b"]),
    ),
    max_size=25,
).map(b"".join)
headed_bytes = st.tuples(
    st.sampled_from([b"text,label\n", b"text\tlabel\r\n", b"", b"\xef\xbb\xbf"]),
    file_bytes,
).map(b"".join)


class Chunks(io.FileIO):
    """A file that gives its bytes in pieces of sizes that a test chooses."""

    def __init__(self, path: Path, sizes: list[int]) -> None:
        super().__init__(path)
        self._sizes = iter(sizes)

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next piece."""
        return super().read(next(self._sizes, size)) or b""


def read_plainly(data: bytes, table_format: str) -> list[Row]:
    """Returns the usable rows by slow and plain means, from the whole file at once."""
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    rows: list[Row] = []
    if table_format == "jsonl":
        for number, line in enumerate(io.StringIO(text, newline=""), start=1):
            try:
                pairs = json.loads(line, object_pairs_hook=list)
                values = dict(pairs)
                is_good = line.strip()[0] == "{" and len(values) == len(pairs)
            except (ValueError, TypeError, RecursionError):
                continue
            if is_good and not any("\udc80" <= c <= "\udcff" for c in line):
                rows.append(Row(number, values))
        return rows
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter="\t" if table_format == "tsv" else ",",
        quoting=csv.QUOTE_NONE if table_format == "tsv" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error:
            continue
        if fields is None:
            return rows
        if not fields:
            continue
        if not header:
            header = fields
            continue
        is_bad = any("\udc80" <= c <= "\udcff" for field in fields for c in field)
        is_header = fields == header and len(header) > 1
        if len(fields) == len(header) and not is_bad and not is_header:
            rows.append(Row(number, dict(zip(header, fields, strict=True))))


@given(headed_bytes, st.sampled_from(FORMATS), st.lists(st.integers(1, 9)))
@settings(max_examples=300)
@example(b"text,label\ra,pos\rb,neg", "csv", [11])
@example(b'text,label\n"a\r', "csv", [3, 3])
@example(b'{"text": "a", "id": "\xe9"}\n{"text": "b"}\n', "jsonl", [])
@example(b'text,label\n"a,pos\nb,pos\nc",pos\nd,pos\n', "csv", [])
def test_streaming_equals_a_plain_reader(tmp_path_factory, data, table_format, sizes):
    path = tmp_path_factory.getbasetemp() / "rows.bin"
    path.write_bytes(data)
    with Chunks(path, sizes) as file:
        reader = RowReader(LineReader(file), table_format)
        try:
            rows = list(reader)
        except RowsError:
            return  # Refused as a whole: the tests below say why.
    assert [row for row in rows if not row.problem] == read_plainly(data, table_format)
    assert all(bool(row.problem) != bool(row.values) for row in rows if row.values)
    assert [row.line for row in rows] == sorted({row.line for row in rows})


def read_as_training(path: Path) -> tuple[list[str], str]:
    """Returns the texts that training reads, or what it says."""
    try:
        fields = DataSettings(task="file", train_file=str(path), test_file=str(path))
        return list(load_task(fields).splits["train"].texts), ""
    except ValueError as error:
        return [], str(error)


def read_as_predict(path: Path, table_format: str) -> tuple[list[str], str]:
    """Returns the texts that predict reads, or the first thing it says."""
    with io.FileIO(path) as file:
        try:
            lines = LineReader(file, path.name)
            rows = list(read_inputs(lines, table_format, 1, where=path.name))
        except ValueError as error:
            return [], str(error)
    bad = [row for row in rows if row.problem]
    if bad:
        return [], f"{path.name} line {bad[0].line} {bad[0].problem}"
    return [row.texts[0] for row in rows], ""


@given(headed_bytes, st.sampled_from(FORMATS))
@settings(max_examples=200)
@example(b"text,label\ra,pos\rb,neg\r", "csv")
@example(b'text,label\n"a,pos\nb,neg\n', "csv")
@example(b'{"text": "a", "label": NaN, "id": %s}\n' % (b"9" * 5000), "jsonl")
@example(b"text,label\na,pos\n%s,neg\n" % (b"b" * 200_000), "csv")
@example(b'{"text": "a", "label": 1}\n%s\n' % (b"[" * 100_000), "jsonl")
@example("text,label\na,1\nb,2\n".encode("utf-16"), "csv")
@example("text\tlabel\na\t1\nb\t2\n".encode("utf-16-le"), "tsv")
@example(gzip.compress(b"text,label\na,1\nb,2\n", mtime=0), "csv")
@example(b'"a\nb",pos\ntext,b\ntext\n', "csv")
def test_training_and_predict_agree(tmp_path_factory, data, table_format):
    path = tmp_path_factory.getbasetemp() / f"rows.{table_format}"
    path.write_bytes(data)
    trained, refusal = read_as_training(path)
    predicted, problem = read_as_predict(path, table_format)
    # What predict does not ask: labels and classes.
    about_labels = ("label", "one class", "no labelled")
    if "has no text column" in problem:
        # Predict chooses columns before it reads rows, and training after.
        assert refusal
    elif problem and "has an empty text" not in refusal:
        assert refusal.split(": set --")[0] == problem.split(": set --")[0] or (
            any(word in refusal for word in about_labels)
        )
    elif refusal:
        is_empty = problem.endswith("is empty") and "has an empty text" in refusal
        assert is_empty or any(word in refusal for word in about_labels)
    else:
        assert trained == predicted


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"text,label,text\na,1,b\n", "two columns of the same name 'text'"),
        ("a.tsv", b"text\tlabel\tlabel\na\t1\t2\n", "same name 'label': rename or"),
        ("a.jsonl", b'{"text": "a", "text": "b"}\n', "line 1 has the key 'text' twice"),
        (
            "a.csv",
            gzip.compress(b"text,label\n", mtime=0),
            "is compressed by gzip: unpack",
        ),
        ("a.jsonl", b"BZh91AY&SY", "is compressed by bzip2"),
        ("a.csv", b"PK\x03\x04\n\x00", r"a zip archive or a sheet \(.xlsx\): save"),
        ("a.csv", b"PAR1\x15\x04", "is a Parquet file: save its rows as"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
        ("a.csv", "text".encode("utf-16-be"), "is in UTF-16: save it as UTF-8"),
        ("a.csv", "text".encode("utf-32"), "is in UTF-32: save it as UTF-8"),
        ("a.csv", bytes(4096), "holds zero bytes only: it was damaged"),
        ("a.csv", b"text,label\n", "is empty but for its header: expected rows"),
        ("a.csv", b"", "is empty: expected rows"),
        ("a.csv", b"\xef\xbb\xbf", "is empty: expected rows"),
        ("a.jsonl", b" \n\r\n", "is empty: expected rows"),
        ("a.jsonl", b'[\n {"text": "a"}\n]\n', "line 1 begins a JSON array: expected"),
        ("a.csv", b"text,caf\xe9\na,b\n", "line 1, the header, is not UTF-8"),
    ],
)
def test_files_that_are_refused_as_a_whole_or_at_their_first_row(
    tmp_path, name, data, message
):
    path = tmp_path / name
    path.write_bytes(data)
    for said in (read_as_training(path)[1], read_as_predict(path, name[2:])[1]):
        assert said.startswith(name)
        assert re.search(message, said)
        assert "\n" not in said


@pytest.mark.parametrize(
    ("columns", "advice"),
    [
        (
            b"text;label\na;1\n",
            "separated by semicolons: a .csv is separated by commas",
        ),
        (b"text\tlabel\na\t1\n", "seems to be separated by tabs"),
        (b"text, label\na,1\n", "names with blanks at their ends: take them out"),
        (b"a film, 7\nb film, 8\n", "the first line of a table is its header"),
        (b"query,kind\na,1\n", "text_columns=query .*label_column=kind"),
    ],
)
def test_advice_on_columns_names_what_to_type(tmp_path, columns, advice):
    path = tmp_path / "a.csv"
    path.write_bytes(columns)
    with pytest.raises(ValueError, match=advice):
        load_task(DataSettings(task="file", train_file=str(path), test_file=str(path)))


def test_advice_on_quotes_in_a_tsv(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b'"text"\t"label"\n"a"\t"1"\n')
    assert "a .tsv is read without quotes, save it as .csv" in read_as_training(path)[1]
    path.write_bytes(b'text\tlabel\n"a\nb"\t1\n')
    assert "line 2 has 1 field" in read_as_training(path)[1]
    assert ".tsv has no quotes: save it as .csv" in read_as_training(path)[1]


def read_text(text: str, table_format: str) -> RowReader:
    return RowReader(io.StringIO(text, newline=""), table_format, "a")


def test_an_open_quote_says_which_lines_it_takes_in():
    rows = "".join(f"fine {i},pos\n" for i in range(36))
    found = list(read_text(f'text,label\nok,pos\n"left open,neg\n{rows}', "csv"))
    assert [row.line for row in found] == [2, 3]
    assert "lines 3 to 39 (37 lines), which are not read" in found[1].problem
    # Closed by a quote far below it is a row, and a note.
    reader = read_text(f'text,label\n"left open,neg\n{rows}ok",pos\nnext,pos\n', "csv")
    assert len(list(reader)) == 2
    assert reader.make_notes() == [
        "a: 1 quoted fields hold lines that look like rows of their own (the first:"
        " lines 2 to 39, 38 lines): is a quote left open there?"
    ]
    # Prose of several lines is none.
    prose = read_text('text,label\n"one\ntwo, or so\nthree\nfour",pos\n', "csv")
    assert len(list(prose)) == 1
    assert prose.make_notes() == []


def test_a_tsv_with_the_quotes_of_csv_is_noted():
    out = io.StringIO(newline="")
    rows = [("plain", "1"), ('"Hi", he said', "0"), ("so", "1"), ('all "of it"', "0")]
    csv.writer(out, dialect="excel-tab").writerows([("text", "label"), *rows])
    reader = read_text(out.getvalue(), "tsv")
    assert [row.values["text"] for row in reader][1] == '"""Hi"", he said"'
    (note,) = reader.make_notes()
    assert note.startswith("a: 2 of 4 rows have a field in quotes, as csv writes it")
    assert "(line 3 is the first)" in note
    # Quotes that csv would have written otherwise are part of the text.
    plain = read_text('text\tlabel\n"Hi" he said "no"\t1\n"open\t0\n', "tsv")
    assert len(list(plain)) == 2
    assert plain.make_notes() == []


def test_columns_without_a_name_may_be_several():
    rows = list(read_text("text,label,,\na,1,,\n", "csv"))
    assert rows[0].values["text"] == "a"


def test_a_repeated_header_is_a_problem():
    rows = list(read_text("text,label\na,1\ntext,label\nb,0\n", "csv"))
    assert rows[1] == Row(3, {}, "repeats the header: delete it")
    # A table of one column may hold its own name.
    assert [r.problem for r in read_text("text\na\ntext\n", "csv")] == ["", ""]


def test_a_line_without_an_end_is_not_read_to_the_end_of_the_file(tmp_path):
    """A hole of 64 GiB, as a file has where its disk was full or failed."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\na,1\nb")
    os.truncate(path, 1 << 36)
    for said in (read_as_training(path)[1], read_as_predict(path, "csv")[1]):
        assert said == (
            "a.csv line 3 has more than 67,108,864 bytes and no end: is it a text file?"
        )


def test_a_row_beyond_the_limit_is_a_problem_in_every_format(monkeypatch):
    monkeypatch.setattr("sweet_jax.data.rows.LONGEST_ROW", 50)
    monkeypatch.setattr("sweet_jax.serving.inputs.LONGEST_ROW", 50)
    long = "x" * 60
    for table_format, text in (
        ("csv", f"text,id\n{long},1\nok,2\n"),
        ("tsv", f"text\tid\n{long}\t1\nok\t2\n"),
        ("jsonl", f'{{"text": "{long}"}}\n{{"text": "ok"}}\n'),
        ("text", f"{long}\nok\n"),
    ):
        lines = io.StringIO(text, newline="")
        bad, good = read_inputs(lines, table_format, 1)
        assert "is longer than" in bad.problem
        assert good.texts == ("ok",)


def test_a_pipe_is_read_by_predict_and_refused_by_training(tmp_path):
    """A run reads its rows again when it goes on; a pipe gives them once."""
    pipe = tmp_path / "rows.csv"
    os.mkfifo(pipe)
    message = r"rows\.csv is not a regular file: .* save them in a file"
    assert re.search(message, read_as_training(pipe)[1])
    thread = threading.Thread(target=pipe.write_bytes, args=(b"text,label\na,1\n",))
    thread.start()
    assert read_as_predict(pipe, "csv") == (["a"], "")
    thread.join()


def test_labels_of_every_source_are_text(tmp_path):
    """1 and "1", true and True are one class each, whatever wrote them."""
    (tmp_path / "a.csv").write_text("text,label\nx,1\ny,True\nz,007\nw,None\n")
    values = [1, True, "007", "None"]
    objects = [{"text": "x", "label": value} for value in values]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(o)}\n" for o in objects))
    for train, test in (("a.csv", "a.jsonl"), ("a.jsonl", "a.csv")):
        raw = load_task(
            DataSettings(
                task="file",
                train_file=str(tmp_path / train),
                test_file=str(tmp_path / test),
            )
        )
        assert raw.label_names == ("007", "1", "None", "True")
        np.testing.assert_array_equal(
            raw.splits["train"].labels, raw.splits["test"].labels
        )


@pytest.mark.parametrize(
    "label", ["null", "NaN", '""', '" "', "0.5", "1e999", "[1]", "{}", '"\\ud800"']
)
def test_a_label_that_names_no_class_is_refused_with_its_line(tmp_path, label):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a", "label": 1}}\n{{"text": "b", "label": {label}}}\n')
    assert read_as_training(path)[1].startswith("a.jsonl line 2: label ")


def test_messages_stay_short_whatever_the_names(tmp_path):
    long = "x" * 10_000
    path = tmp_path / "a.csv"
    for content in (
        f"{long},{long}\na,b\n",
        f"{long},b\na,b\n",
        ",".join(f"c{i}" for i in range(2000)) + "\na\n",
        f"text,label\na,{long}\n",
    ):
        path.write_text(content)
        assert len(read_as_training(path)[1]) < 600
    other = tmp_path / "b.csv"
    other.write_text(f"text,label\na,{long}y\n")
    path.write_text(f"text,label\na,{long}\nb,{long[1:]}\n")
    fields = DataSettings(task="file", train_file=str(path), test_file=str(other))
    with pytest.raises(ValueError, match="which the training rows lack") as raised:
        load_task(fields)
    assert len(str(raised.value)) < 600
