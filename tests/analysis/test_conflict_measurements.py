"""Gradient conflict of a run: measured on time, once, and kept; or when it is over."""

import json
import logging
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweet_jax import report
from sweet_jax.runs import pipeline
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.checksums import write_sealed
from sweet_jax.system.files import FileError
from sweet_jax.training.preemption import Interrupted

PERCENTS = (0.0, 50.0, 100.0)


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No dropout in the layers: with it the programs are much larger."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    shutil.copytree(tiny_encoder, folder)
    attributes = json.loads((folder / "config.json").read_text())
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    attributes |= dict.fromkeys(names, 0.0)
    (folder / "config.json").write_text(json.dumps(attributes))
    return folder


@pytest.fixture
def config(tiny_config: dict[str, Any], encoder: Path) -> dict[str, Any]:
    """Three layers, an exit behind each, one length; 10 steps."""
    tiny_config["encoder"]["name"] = str(encoder)
    tiny_config["method"] = "early_exit"
    tiny_config["exits"]["layers"] = (0, 1, 2)
    tiny_config["data"]["buckets"] = (16,)
    tiny_config["evaluate"]["criteria"] = ("confidence",)
    return tiny_config


def make_settings(config: dict[str, Any], **analysis: Any) -> Settings:
    wanted = {"gradient_conflict": True, "steps_percent": PERCENTS, "num_batches": 3}
    return from_config_dict({**config, "analysis": {**wanted, **analysis}})


def read_conflict(path: Path) -> dict[str, Any]:
    return json.loads((path / "gradient_conflict.json").read_text())


class Watch(logging.Handler):
    """Notes the steps that are measured, and stops the run after one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.stop_after: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a message of the run."""
        match = re.match(r"gradient conflict at step (\d+):", record.getMessage())
        if match:
            self.steps.append(int(match[1]))
            if self.steps[-1] == self.stop_after:
                os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def watch() -> Iterator[Watch]:
    handler = Watch()
    logger = logging.getLogger("sweet_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


@pytest.mark.long
def test_each_step_is_measured_once_and_changes_nothing(config, tmp_path, watch):
    settings = make_settings(config)
    # Stopped while it was measuring, then finished.
    watch.stop_after = 5
    with pytest.raises(Interrupted):
        pipeline.run(settings, tmp_path / "whole", quiet=True)
    assert watch.steps == [0, 5]
    watch.stop_after = None
    whole, _ = pipeline.run(settings, tmp_path / "whole", quiet=True)
    assert watch.steps == [0, 5, 10]
    found = read_conflict(whole)
    assert [m["step"] for m in found["measurements"]] == [0, 5, 10]
    assert (found["num_steps"], found["num_batches"]) == (10, 3)
    assert found["missing_steps"] == []
    # Rows of training, as many as weigh something, none twice.
    rows = [row for batch in found["batch_rows"] for row in batch]
    assert len(set(rows)) == len(rows) == 24
    for measurement in found["measurements"]:
        for group, numbers in zip(
            found["groups"], measurement["conflicts"], strict=True
        ):
            assert len(numbers["cosine"]) == len(group["pairs"])
            assert len(numbers["norm"]) == len(group["exits"]) == 3 - group["segment"]
            assert all(norm > 0 for norm in numbers["norm"]), group["name"]

    # A run that never measured trains the same.
    plain, _ = pipeline.run(from_config_dict(config), tmp_path / "plain", quiet=True)
    for name in ("logits_test.npz", "curves.npz"):
        with np.load(whole / name) as one, np.load(plain / name) as two:
            for key in one.files:
                np.testing.assert_array_equal(one[key], two[key])
    assert not (plain / "gradient_conflict.json").exists()

    # Asked for when training is over: its last step is what is left, in the model.
    shutil.rmtree(plain / "checkpoints")
    watch.steps.clear()
    untouched = (plain / "results.json").stat().st_mtime_ns
    pipeline.run(settings, plain, quiet=True)
    assert watch.steps == [10]
    late = read_conflict(plain)
    assert late["measurements"] == found["measurements"][2:]
    assert late["missing_steps"] == [0, 5]
    assert (plain / "results.json").stat().st_mtime_ns == untouched
    before = (plain / "report.html").stat().st_mtime_ns
    pipeline.run(settings, plain, quiet=True)
    assert (plain / "report.html").stat().st_mtime_ns == before, "nothing was to do"

    # What people see.
    page = (whole / "report.html").read_text()
    assert "Nearest exit against later exits" in page
    assert "Gradient conflict" in page
    assert (whole / "plots" / "gradient_conflict.png").stat().st_size > 10_000
    assert "of 1 layers shared by three exits or more" in report.format_run(whole)
    assert "steps 0, 5." in " ".join(report.format_run(plain).split())

    # Numbers over other batches do not stand beside these.
    with pytest.raises(SettingsError, match="with other batch_rows, num_batches: keep"):
        pipeline.run(make_settings(config, num_batches=2), whole, quiet=True)

    # A step that is gone, and no other wanted: nothing is measured, and that is said.
    (plain / "gradient_conflict.json").unlink()
    pipeline.run(make_settings(config, steps_percent=(50,)), plain, quiet=True)
    assert "Nothing was measured." in " ".join(report.format_run(plain).split())

    path = whole / "gradient_conflict.json"
    for content, message in (
        (None, "is damaged"),
        ({"schema": 99}, "has schema 99, this version reads up to 1"),
        ({"schema": 1}, "groups, measurements"),
    ):
        if content is None:
            path.write_text("{")
        else:
            write_sealed(path, content)
        with pytest.raises(FileError, match=message):
            report.write_report(whole)
        with pytest.raises(FileError):
            pipeline.run(settings, whole, quiet=True)


@pytest.mark.slow
def test_sweet_measures_no_cross_terms(config, tmp_path):
    config["method"] = "sweet"
    settings = make_settings(config, steps_percent=(100.0,))
    path, _ = pipeline.run(settings, tmp_path / "run", quiet=True)
    found = read_conflict(path)
    for group, numbers in zip(
        found["groups"], found["measurements"][0]["conflicts"], strict=True
    ):
        assert numbers["norm"][0] > 0
        assert not any(numbers["norm"][1:])
        assert numbers["cosine"] == [None] * len(group["pairs"])
    assert "No later exit sends a gradient" in " ".join(report.format_run(path).split())
