"""Claims: one process per cell, and no cell lost with the process that had it."""

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
from sweet_jax.study.cell_lock import Claims


def write_claim(folder: Path, **changes: object) -> None:
    content = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "heartbeat": time.time(),
    }
    (folder / "cell.json").write_text(json.dumps(content | changes))


def test_a_cell_has_one_claimant_and_is_free_afterwards(tmp_path):
    mine, other = Claims(tmp_path), Claims(tmp_path)
    with mine.claim("cell") as claimed:
        assert claimed
        assert other.describe("cell") == (
            f"process {os.getpid()} on {socket.gethostname()}"
        )
        with other.claim("cell") as second:
            assert not second
        # The one who was refused must not have let go of it.
        with other.claim("cell") as third:
            assert not third
        with other.claim("another") as free:
            assert free
    assert other.describe("cell") is None
    with other.claim("cell") as claimed:
        assert claimed


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
def test_a_damaged_claim_is_nobodys(tmp_path, content):
    (tmp_path / "cell.json").write_text(content)
    own = Claims(tmp_path)
    assert own.describe("cell") is None
    with own.claim("cell") as claimed:
        assert claimed


def test_a_claim_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), Claims(tmp_path).claim("cell"):
        raise RuntimeError
    assert Claims(tmp_path).describe("cell") is None


def test_of_many_that_meet_a_stale_claim_one_takes_it(tmp_path):
    for _ in range(20):
        write_claim(tmp_path, host="elsewhere", heartbeat=time.time() - 601)
        barrier, taken, done = threading.Barrier(4), [], threading.Barrier(4)

        def work(barrier=barrier, taken=taken, done=done):
            own = Claims(tmp_path)
            barrier.wait()
            with own.claim("cell") as claimed:
                taken.append(claimed)
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
def test_a_claim_lives_for_ten_minutes_after_its_last_beat(tmp_path, changes, alive):
    own = Claims(tmp_path)
    write_claim(tmp_path, **changes)
    assert (own.describe("cell") is not None) == alive


def test_a_process_of_this_host_that_is_gone_holds_nothing(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    own = Claims(tmp_path)
    write_claim(tmp_path, process=gone.pid)
    with own.claim("cell") as claimed:
        assert claimed


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_claim_holds_nothing(tmp_path, content):
    own = Claims(tmp_path)
    (tmp_path / "cell.json").write_text(content)
    with own.claim("cell") as claimed:
        assert claimed


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_lock, "BEAT_SECONDS", 0.01)
    with Claims(tmp_path).claim("cell"):
        path = tmp_path / "cell.json"
        before = json.loads(path.read_text())["heartbeat"]
        end = time.monotonic() + 10
        while json.loads(path.read_text())["heartbeat"] == before:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not path.exists()
