"""Training from Python: rows in, a run out; the same call continues it."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from tiny_encoders import make_sentences

import sweet_jax
from sweet_jax.runs import pipeline
from sweet_jax.runs.run import Run
from sweet_jax.runs.workdir import WorkdirError
from sweet_jax.settings.rules import SettingsError

FRAME = pd.DataFrame(make_sentences(60, seed=1)).rename(
    columns={"sentence": "message", "label": "category"}
)
TEST = pd.DataFrame(make_sentences(20, seed=2)).rename(
    columns={"sentence": "message", "label": "category"}
)
COLUMNS = {"text": "message", "label": "category"}


@pytest.fixture(autouse=True, scope="module")
def own_cache(shared_cache):
    """Caches of the tests never touch the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEET_JAX_CACHE", str(shared_cache))
        yield


@pytest.fixture(scope="module")
def fields(tiny_encoder) -> dict[str, Any]:
    """Settings of a run that takes seconds, as a person writes them."""
    return {
        "encoder": tiny_encoder,
        "layers": (0, 1),
        "buckets": 16,
        "max_length": 16,
        "batch_size": 8,
        "epochs": 1,
        "measure_costs": False,
        "quiet": True,
    }


@pytest.fixture(scope="module")
def run(fields, tmp_path_factory) -> Run:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return sweet_jax.train(FRAME, TEST, **COLUMNS, **fields, workdir=workdir)


def test_a_frame_becomes_a_run(run):
    assert run.results["splits"]["test"] == len(TEST)
    assert run.results["label_names"] == ["no", "yes"]
    assert run.results["task"].startswith("rows-")
    answers = run.classifier.predict(TEST["message"], speedup=1.5)
    assert {answer.label for answer in answers} <= {"no", "yes"}
    assert len(answers) == len(TEST)


def test_equal_rows_in_another_form_continue_the_run(run, fields, monkeypatch):
    monkeypatch.setattr(pipeline._Pipeline, "run", lambda _: pytest.fail("trained"))
    same = sweet_jax.train(
        FRAME.to_dict("list"),
        datasets.Dataset.from_pandas(TEST),
        **COLUMNS,
        **fields,
        workdir=run.workdir,
    )
    assert same.results == run.results


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_rows_are_refused_with_the_difference(run, fields, split):
    frames = {"train": FRAME, "test": TEST}
    frames[split] = frames[split][1:]
    with pytest.raises(WorkdirError, match=r"a run with other settings: data\.task"):
        sweet_jax.train(*frames.values(), **COLUMNS, **fields, workdir=run.workdir)


def test_the_default_work_directory_is_in_runs(fields, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline._Pipeline, "run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweet_jax.train(FRAME, TEST, **COLUMNS, **fields)
    [workdir] = (tmp_path / "runs").iterdir()
    assert workdir.name.startswith("rows-")


@pytest.fixture
def seen(monkeypatch) -> list[Any]:
    """Settings of the runs that were asked for; no run takes place."""
    settings: list[Any] = []
    monkeypatch.setattr(
        pipeline, "run", lambda given, *_: settings.append(given) or 1 / 0
    )
    return settings


def find_data(seen: list[Any], *arguments: Any, **keywords: Any) -> Any:
    with pytest.raises(ZeroDivisionError):
        sweet_jax.train(*arguments, **keywords)
    return seen.pop().data


def test_files_folders_and_tasks_are_settings(seen, tiny_task):
    train, test = tiny_task / "train.jsonl", tiny_task / "test.jsonl"
    data = find_data(seen, train, str(test), text="sentence", label="label")
    assert (data.task, data.train_file, data.test_file) == (
        "file",
        str(train),
        str(test),
    )
    assert (data.text_columns, data.label_column) == (("sentence",), "label")
    assert find_data(seen, train).test_file == ""
    assert find_data(seen, tiny_task).task == str(tiny_task)
    assert find_data(seen, "rotten_tomatoes").task == "rotten_tomatoes"
    assert find_data(seen, "absent.csv").train_file == "absent.csv"


def test_published_splits_are_taken_as_they_are(seen):
    rows = datasets.Dataset.from_pandas(FRAME)
    splits = datasets.DatasetDict(train=rows, validation=rows, test=rows, other=rows)
    data = find_data(seen, splits, **COLUMNS)
    parts = {"train": FRAME, "validation": FRAME, "test": FRAME}
    held = sweet_jax.data.in_memory.hold_rows(parts, **COLUMNS)
    assert data.task == held.task_name


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((FRAME, "test.csv"), {}, "train is of type DataFrame and test a file"),
        (("train.csv", FRAME), {}, "train is a file and test of type DataFrame"),
        (("train.csv",), {"label": [0, 1]}, "labels in a column, so give its name"),
        (("rotten_tomatoes", "test.csv"), {}, "has test rows of its own"),
        (
            ({"dev": datasets.Dataset.from_pandas(FRAME)},),
            {},
            "has the splits dev and no split 'train'",
        ),
        ((FRAME[["message", "message"]],), {}, "of the same name 'message'"),
        ((FRAME,), COLUMNS | {"num_epoch": 1}, "did you mean num_epochs?"),
        ((FRAME,), COLUMNS | {"epochs": 0}, "train.num_epochs=0: allowed is"),
        ((FRAME,), COLUMNS | {"method": "sweat"}, "did you mean sweet?"),
        ((FRAME,), COLUMNS | {"data.task": "x"}, "data.task is given twice"),
        ((FRAME,), COLUMNS | {"task": "x"}, "data.task and task are the same setting"),
    ],
)
def test_wrong_arguments_are_one_line_before_any_work(
    seen, arguments, keywords, message
):
    with pytest.raises((ValueError, TypeError)) as error:
        sweet_jax.train(*arguments, **keywords)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not seen


def test_an_unknown_encoder_is_one_line(tmp_path):
    with pytest.raises(SettingsError, match="minilm-l6"):
        sweet_jax.train(FRAME, encoder="minilm-l7", workdir=tmp_path / "x", **COLUMNS)
    assert not (tmp_path / "x").exists()


def test_warnings_are_heard_and_the_root_logger_is_left_alone():
    code = (
        "import logging, sweet_jax.data.tokenize as t\n"
        "t.logger.warning('inputs are cut'); t.logger.info('not shown')\n"
        "assert not logging.root.handlers"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "inputs are cut"
    assert not logging.getLogger("sweet_jax").handlers


def test_no_module_logs_through_absl():
    root = Path(sweet_jax.__file__).parent
    found = [
        path.relative_to(root)
        for path in root.rglob("*.py")
        if "absl import logging" in path.read_text() and path.parent.name != "commands"
    ]
    assert not found
