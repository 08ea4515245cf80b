"""Local folders of tables: text stays text, and names say which split is which."""

import json
from pathlib import Path

import pytest
from datasets import data_files

from sweet_jax.data.folder import find_tables
from sweet_jax.data.sources import load_task
from sweet_jax.data.tasks import get_task
from sweet_jax.settings.fields import DataSettings

ROWS = "text,label\n007,1\nNone,-1\nNA,True\nnan,None\n1.50,007\n"


def write(folder, **files):
    """Writes files by name, `__` for a dot and `_in_` for a folder in between."""
    for name, content in files.items():
        parts = name.replace("__", ".").split("_in_")
        path = folder.joinpath(*reversed(parts))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def find(folder):
    return {
        split: [str(path.relative_to(folder)) for path in paths]
        for split, paths in find_tables(folder, "x").items()
    }


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_text_and_labels_stay_as_written(tmp_path, ending):
    """Type guessing made 7 of 007, dropped None and NA, and a split of -1 labels."""
    rows = [line.split(",") for line in ROWS.splitlines()[1:]]
    content = ROWS.replace(",", "\t") if ending == "tsv" else ROWS
    only = "text,label\nx,-1\n"
    only = only.replace(",", "\t") if ending == "tsv" else only
    if ending == "jsonl":
        objects = [{"text": text, "label": label} for text, label in rows]
        content = "".join(json.dumps(row) + "\n" for row in objects)
        only = '{"text": "x", "label": -1}\n'
    (tmp_path / f"train.{ending}").write_text(content)
    (tmp_path / f"test.{ending}").write_text(only)
    raw = load_task(DataSettings(task=str(tmp_path)))
    assert raw.splits["train"].texts == tuple(text for text, _ in rows)
    names = [raw.label_names[i] for i in raw.splits["train"].labels]
    assert names == [label for _, label in rows]
    assert [raw.label_names[i] for i in raw.splits["test"].labels] == ["-1"]


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train.csv", "dev.csv", "test.csv"], "train validation test"),
        (["Train.CSV", "my-eval.tsv"], "train test"),
        (["data/train.jsonl", "data/validation.jsonl"], "train validation"),
        (["data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"], "t"),
        (["train/a.csv", "test/b.csv"], "train test"),
        (["data/training/a.csv", "data/valid/b.csv"], "train validation"),
        (["reviews.csv"], "train"),
        (["test.csv"], "test"),
        (["train.csv", "labels.csv", ".train.csv", "config.json"], "train"),
        (["latest.csv", "trainer.csv", "train.csv"], "train"),
    ],
)
def test_splits_are_told_by_names(tmp_path, files, splits):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text,label\na,1\n")
    expected = ["train", "test"] if splits == "t" else splits.split()
    found = find(tmp_path)
    assert list(found) == expected
    assert all(len(names) == 1 for names in found.values())


@pytest.mark.parametrize(
    "files",
    [
        ["train.csv", "valid.csv", "my_test.csv", "other.csv"],
        ["train/a.csv", "dev/test.csv"],
        ["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv"],
        ["reviews.csv", "more.csv"],
        ["evaluation-1.csv", "training.csv", "trainer.csv"],
    ],
)
def test_names_mean_what_they_mean_to_datasets(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text,label\na,1\n")
    base = str(tmp_path)
    theirs = data_files.DataFilesDict.from_patterns(
        data_files.get_data_patterns(base), base_path=base
    )
    expected = {
        str(split): sorted(str(Path(p).relative_to(tmp_path)) for p in paths)
        for split, paths in theirs.items()
    }
    assert find(tmp_path) == expected


def test_shards_are_one_split_with_their_own_lines(tmp_path):
    write(tmp_path, **{"train-1__csv": "text,label\na,1\n"})
    write(tmp_path, **{"train-2__csv": "text,label\nb,0\nc,\n"})
    with pytest.raises(ValueError, match=r"^train-2\.csv line 3: label \"\" is not"):
        load_task(DataSettings(task=str(tmp_path)))
    write(tmp_path, **{"train-2__csv": "text,label\nb,0\n"})
    raw = load_task(DataSettings(task=str(tmp_path)))
    assert raw.splits["train"].texts == ("a", "b")
    assert raw.tables["train"].locate(1) == "train-2.csv line 2"
    assert "2 files make one split: train-1.csv, train-2.csv" in raw.notes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train.csv", "train.jsonl"], "of the split train of several kinds of files"),
        (["train.csv", "data/train.csv"], r"several folders: data/train\.csv and tra"),
        (
            ["train.csv", "test.parquet"],
            r"holds train\.csv and test\.parquet: keep one",
        ),
        (["train.jsonl", "test.json"], r"holds train\.jsonl and test\.json"),
        (["train.csv.gz", "test.csv"], r"train\.csv\.gz is compressed: unpack it"),
        (["train_dev.csv"], r"train_dev\.csv has the words of two splits, train and v"),
    ],
)
def test_kinds_that_do_not_go_together_are_refused(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text,label\na,1\n")
    with pytest.raises(ValueError, match=message) as raised:
        load_task(DataSettings(task=str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_a_card_that_names_the_files_is_not_guessed_around(tmp_path):
    write(tmp_path, train__csv=ROWS, b__csv=ROWS)
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n---\n"
    )
    (tmp_path / "README.md").write_text(card)
    advice = r"--config\.data.task=file --config.data.train_file=FILE"
    with pytest.raises(ValueError, match=advice):
        load_task(DataSettings(task=str(tmp_path)))
    # The advice leads out.
    file = str(tmp_path / "train.csv")
    load_task(DataSettings(task="file", train_file=file, test_file=file))
    (tmp_path / "README.md").write_text("# Reviews\n")
    load_task(DataSettings(task=str(tmp_path)))


def test_a_file_as_a_task_is_told_from_a_folder(tmp_path):
    write(tmp_path, train__csv=ROWS)
    with pytest.raises(ValueError, match=r"is a file: --config\.data\.task=file"):
        get_task(str(tmp_path / "train.csv"))


def test_a_folder_of_a_test_file_alone_trains_nothing(tmp_path):
    write(tmp_path, test__csv=ROWS)
    with pytest.raises(ValueError, match="has no labelled train split: test"):
        load_task(DataSettings(task=str(tmp_path)))
