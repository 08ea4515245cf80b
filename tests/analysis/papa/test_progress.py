"""Progress: lines after two seconds, then every ten, none where it is quiet."""

import logging

import pytest

from sweet_jax.analysis.papa import progress as module
from sweet_jax.analysis.papa.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_come_after_two_seconds_and_every_ten(clock, caplog, quiet):
    caplog.set_level(logging.INFO)
    with Progress("constants", 100, "row", quiet) as progress:
        progress.start_at(10)
        for second in range(1, 16):
            clock[0] = float(second)
            progress.add(5)
        progress.reach(90, loss=0.25)
    expected = [
        "constants: 100 rows",
        "constants: row 20/100  16 s left",
        "constants: row 70/100  6 s left",
    ]
    assert caplog.messages == ([] if quiet else expected)
    assert progress.seconds == 15
