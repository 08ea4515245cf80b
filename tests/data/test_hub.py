"""Data sets of the hub and local folders: columns, splits, and no network."""

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from datasets import config as datasets_config

from sweet_jax.data.sources import load_raw, load_task
from sweet_jax.data.tasks import get_task
from sweet_jax.settings.fields import DataSettings

REPOSITORY = Path(__file__).resolve().parents[2]


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
    rows = ["a fine film,pos\n", "a bad film,neg\n", '"fine, fine",pos\n']
    (folder / "train.csv").write_text("".join(["text,label\n", *rows]))
    (folder / "test.csv").write_text("".join(["text,label\n", *rows[:2]]))
    raw = load_task(DataSettings(task=str(folder)))
    assert raw.label_names == ("neg", "pos")
    assert raw.splits["train"].texts == ("a fine film", "a bad film", "fine, fine")
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


def test_boolean_labels_are_the_classes_true_and_false(hub_cache, tmp_path):
    rows = {"text": ["p", "q"], "label": [True, False]}
    folder = write_parquet(tmp_path / "things", train=rows, test=rows)
    assert load_task(DataSettings(task=str(folder))).label_names == ("False", "True")


@pytest.mark.parametrize("train_labels", [[-1, 0], ["-1", "0"]])
def test_a_split_of_minus_one_is_a_class_that_training_has(
    hub_cache, tmp_path, train_labels
):
    minus_one = type(train_labels[0])(-1)
    folder = write_parquet(
        tmp_path / "things",
        train={"text": ["p", "q"], "label": train_labels},
        test={"text": ["r"], "label": [minus_one]},
    )
    raw = load_task(DataSettings(task=str(folder)))
    assert raw.splits["test"].labels.tolist() == [0]
    assert raw.notes == ()


def test_rows_without_a_label_are_counted_in_a_note(hub_cache, tmp_path):
    folder = write_parquet(
        tmp_path / "things",
        train={"text": ["p", "q", "r"], "label": ["a", None, "b"]},
        test={"text": ["s"], "label": ["a"]},
    )
    raw = load_task(DataSettings(task=str(folder)))
    assert len(raw.splits["train"]) == 2
    (note,) = raw.notes
    assert note.endswith(
        "(train): 1 of 3 rows have no label (none or -1) and are left out"
    )


def test_a_label_that_is_a_list_is_one_line(hub_cache, tmp_path):
    rows = {"text": ["p", "q"], "label": [[0, 1], [1]]}
    folder = write_parquet(tmp_path / "things", train=rows)
    with pytest.raises(ValueError, match=r"label '\[0, 1\]' .* is a list, expected an"):
        load_task(DataSettings(task=str(folder)))


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
    raw = load_raw(task, DataSettings(task="mnli"))
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
    raw = load_raw(task, DataSettings(task="mrpc"))
    assert set(raw.splits) == {"train", "validation"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", ""], "label": [0, 1]}, r"\(train\) row 1 has an empty text"),
        ({"text": ["a", None], "label": [0, 1]}, r"\(train\) row 1 has an empty text"),
        (
            {"text": ["a", "b"], "label": [0.5, 1.0]},
            r"row 0: label .0.5. .* is a float, expected an int",
        ),
        (
            {"text": [1, 2], "label": [0, 1]},
            r"row 0 has a int as .text., expected a string",
        ),
        (
            {"text": ["a", "b"], "stars": [0, 1]},
            r"no column 'label' and no other .*'stars' .0.: set",
        ),
        ({"text": ["a", "b"], "label": [1, 1]}, "only one class, '1'"),
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
        "from sweet_jax.settings.fields import DataSettings\n"
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
