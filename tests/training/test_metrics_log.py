"""What training shows while it runs, and where."""

import io
import json
import logging
import sys
import time
from pathlib import Path

import pytest

from sweet_jax.training.metrics_log import MetricsLog

ROW = {"epoch": 1.0, "loss": [0.5], "learning_rate": 1e-3, "gradient_norm": 1.0}


def log_two_steps(path: Path, quiet: bool = False) -> None:
    with MetricsLog(path, "", 0, num_steps=2, quiet=quiet) as log:
        for step in (1, 2):
            log.write(step, ROW, num_examples=4.0)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [1, 2]


class Cell(io.StringIO):
    """Standard error of a cell: no terminal."""


Cell.__module__ = "ipykernel.iostream"


class Terminal(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self) -> bool:
        """Whether it is one."""
        return True


@pytest.mark.parametrize("kind", [Cell, Terminal])
def test_a_notebook_and_a_terminal_get_a_bar(kind, tmp_path, monkeypatch, caplog):
    shown = kind()
    monkeypatch.setattr(sys, "stderr", shown)
    with caplog.at_level(logging.INFO):
        log_two_steps(tmp_path / "metrics.jsonl")
    assert "2/2" in shown.getvalue()
    assert not caplog.messages


def test_elsewhere_it_is_lines_of_the_log(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    with caplog.at_level(logging.INFO, "sweet_jax"):
        log_two_steps(tmp_path / "metrics.jsonl")
    assert not shown.getvalue()
    assert [line.split("  ")[0] for line in caplog.messages] == ["step 1/2", "step 2/2"]


@pytest.mark.parametrize("kind", [Cell, Terminal, io.StringIO])
def test_quiet_shows_nothing(kind, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", shown := kind())
    with caplog.at_level(logging.INFO, "sweet_jax"):
        log_two_steps(tmp_path / "metrics.jsonl", quiet=True)
    assert not shown.getvalue()
    assert not caplog.messages


def test_a_pause_is_no_training_time(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, "", first_step=0, num_steps=2, quiet=True) as log:
        log.write_cost(0, {"phase": 0})
        with log.pause():
            time.sleep(0.5)
        log.write(1, {"loss": [0.7], "learning_rate": 0.1}, num_examples=8.0)
    row = json.loads(path.read_text().splitlines()[1])
    assert row["seconds"] < 0.4
    assert row["examples_per_second"] > 8 / 0.4
