"""Damaged files of a run are made again, or refused with advice that leads out."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sweet_jax
from sweet_jax import report
from sweet_jax.runs import evaluate, pipeline, workdir
from sweet_jax.runs.workdir import WorkdirError
from sweet_jax.serving.model_folder import ModelFolderError
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.system.files import FileError

SLOW, LONG = pytest.mark.slow, pytest.mark.long


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


WAYS: dict[str, Callable[[Path, Path], object]] = {
    "removed": lambda path, other: path.unlink(),
    "emptied": lambda path, other: os.truncate(path, 0),
    "cut": lambda path, other: os.truncate(path, path.stat().st_size // 2),
    "flipped": lambda path, other: flip(path),
    "replaced": lambda path, other: shutil.copy(other, path),
}
CHECKPOINT = "checkpoints/model/steps/6"
# What the run's own command reads, and all that it writes for others.
FILES = (
    "config.json",
    "checksums.json",
    "metrics.jsonl",
    "logits_calibration.npz",
    "logits_test.npz",
    "curves.npz",
    "baselines.json",
    "results.json",
    "model/model.json",
    "model/params.safetensors",
    "model/calibration.npz",
    "model/checksums.json",
    "model/encoder/config.json",
    "model/tokenizer/tokenizer.json",
    "model/tokenizer/tokenizer_config.json",
)


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


@pytest.fixture
def settings(tiny_config: dict[str, Any]) -> Settings:
    """Two layers, two exits, one length: one small program each; 6 steps."""
    tiny_config["exits"]["layers"] = (0, 1)
    tiny_config["data"] |= {"buckets": (16,), "max_train_examples": 24}
    tiny_config["evaluate"] |= {"criteria": ("confidence",), "baselines": True}
    return from_config_dict(tiny_config)


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Finished runs by name, each made by the first test that asks for it."""
    return {}


@pytest.fixture
def finished(settings, made, tmp_path_factory) -> Path:
    """A finished run, to be copied."""
    return make_once("finished", settings, made, tmp_path_factory)


@pytest.fixture
def other(settings, tiny_config, made, tmp_path_factory) -> Path:
    """The same with another seed."""
    settings = from_config_dict({**tiny_config, "seed": 1})
    return make_once("other", settings, made, tmp_path_factory)


def make_once(name: str, settings: Settings, made, factory) -> Path:
    if name not in made:
        made[name] = factory.mktemp(name) / "run"
        pipeline.run(settings, made[name], quiet=True)
    return made[name]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def describe(run: Path) -> dict[str, Any]:
    """Returns what of a run must be as it was."""
    results = json.loads((run / "results.json").read_text())
    # Of the process that evaluated.
    del results["seconds"], results["programs"], results["baselines"]["seconds"]
    with np.load(run / "logits_test.npz") as arrays:
        logits = arrays["logits"].tobytes()
    params = (run / "model" / "params.safetensors").read_bytes()
    config = (run / "config.json").read_text()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    return {
        "results": results,
        "logits": hashlib.sha256(logits).hexdigest(),
        "params": hashlib.sha256(params).hexdigest(),
        "config": config,
        "losses": losses,
    }


def hash_all(run: Path) -> dict[Path, tuple[int, str]]:
    """Returns time and content of every file."""
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in run.rglob("*")
        if path.is_file()
    }


def follow(error: ValueError, run: Path, settings: Settings) -> None:
    """Does what an error's line says, and sees that it ends well."""
    text = str(error)
    assert "\n" not in text
    if match := re.search(r"(\S+\.json) .*: move it away", text):
        Path(match[1]).rename(run.parent / "moved")
        return
    assert re.search(
        r"epeat the command (of the run|that started)|copy .* again", text
    ), text
    pipeline.run(settings, run, quiet=True)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        pytest.param(
            name,
            way,
            marks=()
            if (name, way) == ("model/params.safetensors", "flipped")
            else SLOW
            if (name, way)
            in (
                ("config.json", "emptied"),
                ("metrics.jsonl", "flipped"),
                ("logits_test.npz", "replaced"),
                ("baselines.json", "flipped"),
            )
            else LONG,
        )
        for name in FILES
        for way in WAYS
    ],
)
def test_the_same_command_makes_a_damaged_file_again(
    settings, finished, other, run, caplog, name, way
):
    wanted = describe(finished)
    WAYS[way](run / name, other / name)
    if (run / name).exists() and (run / name).read_bytes() == (
        finished / name
    ).read_bytes():
        pytest.skip("the other run has the same file")
    pipeline.run(settings, run, quiet=True)
    assert describe(run) == wanted
    said = [line for line in caplog.messages if str(run) in line]
    assert said, "it is said"
    assert all("\n" not in line for line in said)
    sweet_jax.load(run / "model")
    report.write_report(run)
    # Nothing is left to do.
    before = hash_all(run)
    pipeline.run(settings, run, quiet=True)
    assert hash_all(run) == before


@pytest.mark.parametrize(
    ("name", "way"),
    [
        pytest.param(n, w, marks=() if w == "flipped" and "model.json" in n else LONG)
        for n in FILES
        for w in WAYS
    ],
)
def test_the_advice_of_every_reader_leads_out(
    settings, finished, other, run, tmp_path, name, way
):
    WAYS[way](run / name, other / name)
    if (run / name).exists() and (run / name).read_bytes() == (
        finished / name
    ).read_bytes():
        pytest.skip("the other run has the same file")
    readers: dict[str, Callable[[], object]] = {
        "report": lambda: report.write_report(run),
        "evaluate": lambda: evaluate.evaluate_on(
            run, settings.data.test_file, output=tmp_path / "evaluation"
        ),
        "predict": lambda: sweet_jax.load(run / "model").predict(["good film"]),
    }
    refused = []
    for reader, read in readers.items():
        try:
            read()
        except (FileError, ModelFolderError, WorkdirError) as error:
            refused.append(reader)
            assert not (tmp_path / "evaluation").exists()
            follow(error, run, settings)
            read()
    # Test rows are read by studies alone, and so is their checksum; baselines.json is
    # read by the run alone, since results.json has its content.
    unread = ("logits_test.npz", "checksums.json", "baselines.json")
    assert refused or name in unread
    assert not (refused and name == "logits_test.npz")
    if refused:
        assert describe(run) == describe(finished)


def test_damaged_weights_never_get_new_checksums(settings, tiny_config, run, caplog):
    """Weights are damaged, the rest of the run is fine, only evaluation changes."""
    wanted = describe(run)["params"]
    flip(run / "model" / "params.safetensors")
    tiny_config["evaluate"]["num_thresholds"] = 5
    pipeline.run(from_config_dict(tiny_config), run, quiet=True)
    assert describe(run)["params"] == wanted
    assert any(
        "params.safetensors" in line or "/model is" in line for line in caplog.messages
    )
    sweet_jax.load(run / "model")


@SLOW
def test_without_checkpoint_and_weights_the_run_is_trained_again(
    settings, finished, run, caplog
):
    flip(run / "model" / "params.safetensors")
    flip(run / CHECKPOINT / "state.safetensors")
    pipeline.run(settings, run, quiet=True)
    assert describe(run) == describe(finished)
    assert any("training starts from the beginning" in line for line in caplog.messages)


@SLOW
def test_whole_weights_need_no_checkpoint(settings, tiny_config, finished, run):
    """Who deletes checkpoints to save space may still evaluate, and lose a bank."""
    shutil.rmtree(run / "checkpoints")
    flip(run / "logits_calibration.npz")
    (run / "model" / "model.json").unlink()
    pipeline.run(settings, run, quiet=True)
    assert describe(run) == describe(finished)
    assert not (run / "checkpoints").exists()


@SLOW
@SLOW
@pytest.mark.parametrize("way", WAYS)
def test_metrics_of_a_half_finished_run_come_back(settings, finished, run, other, way):
    for path in run.iterdir():
        if path.name not in ("config.json", "versions.json", "checkpoints"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copy(finished / "metrics.jsonl", run / "metrics.jsonl")
    WAYS[way](run / "metrics.jsonl", other / "metrics.jsonl")
    pipeline.run(settings, run, quiet=True)
    assert describe(run) == describe(finished)


def test_a_damaged_config_of_other_settings_is_refused_with_a_way_out(
    settings, tiny_config, run, tmp_path
):
    (run / "config.json").write_text("{")
    changed = from_config_dict({**tiny_config, "seed": 5})
    with pytest.raises(WorkdirError, match=r"with the same settings, or name another"):
        pipeline.run(changed, run, quiet=True)
    pipeline.run(settings, run, quiet=True)
    (run / "config.json").write_text("{")
    (run / "checksums.json").unlink()
    with pytest.raises(WorkdirError, match=r"can be read. Name another --workdir"):
        pipeline.run(settings, run, quiet=True)
    flip(run / "checkpoints" / "model" / "steps" / "6" / "checksums.json")


def test_a_finished_run_may_be_read_only(settings, run, tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(workdir, "take_lock", refuse)
    before = hash_all(run)
    pipeline.run(settings, run, quiet=True)
    report.format_run(run)
    sweet_jax.load(run / "model").predict(["good film"])
    assert hash_all(run) == before
    flip(run / "curves.npz")
    with pytest.raises(WorkdirError, match=r"cannot be written \(Permission denied\)"):
        pipeline.run(settings, run, quiet=True)


@SLOW
def test_evaluation_elsewhere_leaves_the_run_alone(settings, run, tmp_path):
    before = hash_all(run)
    evaluate.evaluate_on(run, settings.data.test_file, output=tmp_path / "elsewhere")
    report.write_report(tmp_path / "elsewhere")
    assert hash_all(run) == before
