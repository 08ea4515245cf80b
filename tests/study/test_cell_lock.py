"""Locks: one process per cell, and no cell lost with the process that had it."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sweet_jax.study import cell_lock
from sweet_jax.study.cell_lock import CellLocks


def write_lock(folder: Path, **changes: object) -> None:
    content = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "heartbeat": time.time(),
    }
    (folder / "cell.json").write_text(json.dumps(content | changes))


def test_a_cell_has_one_holder_and_is_free_afterwards(tmp_path):
    mine, other = CellLocks(tmp_path), CellLocks(tmp_path)
    with mine.hold("cell") as held:
        assert held
        assert other.describe("cell") == (
            f"process {os.getpid()} on {socket.gethostname()}"
        )
        with other.hold("cell") as second:
            assert not second
        # The one who was refused must not have let go of it.
        with other.hold("cell") as third:
            assert not third
        with other.hold("another") as free:
            assert free
    assert other.describe("cell") is None
    with other.hold("cell") as held:
        assert held


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[" * 100_000,
        '{"host": "elsewhere", "process": 1, "heartbeat": "now"}',
        '{"host": "elsewhere", "process": 1, "heartbeat": NaN}',
        f'{{"host": "{socket.gethostname()}", "process": 1{"0" * 30},'
        f' "heartbeat": {time.time()}}}',
    ],
    ids=["empty", "no fields", "deep", "text", "NaN", "no process"],
)
def test_a_damaged_lock_is_nobodys(tmp_path, content):
    (tmp_path / "cell.json").write_text(content)
    own = CellLocks(tmp_path)
    assert own.describe("cell") is None
    with own.hold("cell") as held:
        assert held


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), CellLocks(tmp_path).hold("cell"):
        raise RuntimeError
    assert CellLocks(tmp_path).describe("cell") is None


def test_of_many_that_meet_a_stale_lock_one_takes_it(tmp_path):
    for _ in range(20):
        write_lock(tmp_path, host="elsewhere", heartbeat=time.time() - 601)
        barrier, taken, done = threading.Barrier(4), [], threading.Barrier(4)

        def work(barrier=barrier, taken=taken, done=done):
            own = CellLocks(tmp_path)
            barrier.wait()
            with own.hold("cell") as held:
                taken.append(held)
                done.wait()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False, False, False, True]


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        ({}, True),
        ({"host": "elsewhere"}, True),
        ({"host": "elsewhere", "heartbeat": time.time() - 700}, False),
        ({"heartbeat": time.time() - 700}, False),
    ],
)
def test_a_lock_lives_for_ten_minutes_after_its_last_beat(tmp_path, changes, alive):
    own = CellLocks(tmp_path)
    write_lock(tmp_path, **changes)
    assert (own.describe("cell") is not None) == alive


def test_a_process_of_this_host_that_is_gone_holds_nothing(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    own = CellLocks(tmp_path)
    write_lock(tmp_path, process=gone.pid)
    with own.hold("cell") as held:
        assert held


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_lock_holds_nothing(tmp_path, content):
    own = CellLocks(tmp_path)
    (tmp_path / "cell.json").write_text(content)
    with own.hold("cell") as held:
        assert held


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_lock, "BEAT_SECONDS", 0.01)
    with CellLocks(tmp_path).hold("cell"):
        path = tmp_path / "cell.json"
        before = json.loads(path.read_text())["heartbeat"]
        end = time.monotonic() + 10
        while json.loads(path.read_text())["heartbeat"] == before:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not path.exists()
