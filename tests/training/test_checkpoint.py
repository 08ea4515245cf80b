"""Checkpoints: whole or passed over, whatever is damaged, whenever a process dies."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from sweet_jax.system import checksums
from sweet_jax.training import checkpoint
from sweet_jax.training.checkpoint import CheckpointError, Checkpoints

NAMES = ("state.safetensors", "metrics.jsonl", "checksums.json")


def make_state(step: int) -> dict[str, Any]:
    """Returns a state of two arrays that tells its step."""
    return {
        "step": np.int32(step),
        "params": {"kernel": np.full((40, 3), step, np.float32)},
    }


def open_checkpoints(folder: Path, **fields: Any) -> Checkpoints:
    return Checkpoints(folder / "steps", "run", folder / "metrics.jsonl", **fields)


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        (folder / "metrics.jsonl").write_text(f"{step}\n" * step)
        open_checkpoints(folder).save(step, make_state(step))


def restore(folder: Path) -> int | None:
    """Returns the restored step, if any, after a look at what came with it."""
    found = open_checkpoints(folder).restore_newest(lambda step: make_state(0))
    if found is None:
        return None
    step, state = found
    assert state["step"] == step
    np.testing.assert_array_equal(state["params"]["kernel"], np.float32(step))
    assert (folder / "metrics.jsonl").read_text() == f"{step}\n" * step
    return step


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


WAYS: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip,
    "replaced": lambda path: shutil.copy(path.parents[1] / "3" / path.name, path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_step_falls_back_to_the_one_before(tmp_path, caplog, name, way):
    save(tmp_path, 3, 6)
    WAYS[way](tmp_path / "steps" / "6" / name)
    (tmp_path / "metrics.jsonl").write_text("9\n" * 9)
    with caplog.at_level(logging.WARNING):
        assert restore(tmp_path) == 3
    [line] = caplog.messages
    assert f"{tmp_path}/steps/6/" in line
    assert line.endswith(": this checkpoint is skipped")
    assert "\n" not in line
    # Training comes by step 6 again.
    save(tmp_path, 6)
    assert restore(tmp_path) == 6


def test_an_extra_file_is_no_part_of_a_checkpoint(tmp_path, caplog):
    save(tmp_path, 3, 6)
    (tmp_path / "steps" / "6" / "more").touch()
    assert restore(tmp_path) == 3
    assert "6/more is not in checksums.json" in caplog.text


def test_a_file_of_a_terabyte_is_not_read_to_its_end(tmp_path, caplog):
    save(tmp_path, 1, 2)
    os.truncate(tmp_path / "steps" / "2" / "metrics.jsonl", 1 << 40)  # a hole
    assert restore(tmp_path) == 1
    assert "metrics.jsonl has 1099511627776 bytes, at most" in caplog.text


def test_training_begins_again_where_no_checkpoint_is_whole(tmp_path, caplog):
    assert restore(tmp_path) is None
    assert not caplog.messages
    save(tmp_path, 3, 6)
    for step in (3, 6):
        flip(tmp_path / "steps" / str(step) / "state.safetensors")
    assert restore(tmp_path) is None
    *_, last = caplog.messages
    assert last.endswith(": training starts from the beginning")


@pytest.mark.parametrize(
    "change",
    [
        {"step": "3", "run": "run"},
        {"step": "6", "run": "another"},
        {},
    ],
)
def test_the_state_of_another_step_or_run_is_passed_over(tmp_path, caplog, change):
    save(tmp_path, 3, 6)
    folder = tmp_path / "steps" / "6"
    arrays = {"step": np.array(6, np.int32)}
    arrays["params/kernel"] = np.full((40, 3), 6, np.float32)
    checkpoint.save_file(arrays, folder / "state.safetensors", metadata=change)
    (folder / "checksums.json").unlink()
    checksums.write_checksums(folder)
    assert restore(tmp_path) == 3
    assert "belongs to another training" in caplog.text


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"step": np.int32(0)}, "belongs to another training"),
        (make_state(0) | {"more": np.float32(0)}, "belongs to another training"),
        (make_state(0) | {"step": np.int64(0)}, "has another step"),
        (
            make_state(0) | {"params": {"kernel": np.zeros((3, 40), np.float32)}},
            "has another params/kernel",
        ),
    ],
)
def test_the_state_of_another_model_is_passed_over(tmp_path, caplog, target, reason):
    save(tmp_path, 3)
    assert open_checkpoints(tmp_path).restore_newest(lambda step: target) is None
    assert reason in caplog.messages[0]


def test_a_bug_of_ours_is_no_damage(tmp_path):
    save(tmp_path, 3)
    with pytest.raises(KeyError, match="ours"):
        open_checkpoints(tmp_path).restore_newest(lambda step: {}["ours"])


def test_a_process_may_die_at_any_moment(tmp_path, monkeypatch):
    """What lies there before and after each call restores to a whole step."""
    folder, copies = tmp_path / "run", tmp_path / "copies"
    folder.mkdir()
    save(folder, 3, 6)

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **fields: Any) -> Any:
            count = len(list(copies.glob("*")))
            with monkeypatch.context() as quiet:
                quiet.setattr(owner, name, original)
                quiet.setattr(checkpoint.shutil, "copyfile", copyfile)
                shutil.copytree(folder, copies / str(count))
            return original(*arguments, **fields)

        monkeypatch.setattr(owner, name, call)

    copyfile = shutil.copyfile
    for owner, name in (
        (checkpoint, "save_file"),
        (checkpoint.shutil, "copyfile"),
        (checkpoint.checksums, "write_checksums"),
        (checkpoint.os, "fsync"),
        (checkpoint.Path, "rename"),
        (checkpoint.shutil, "rmtree"),
    ):
        watch(owner, name)
    save(folder, 9)
    monkeypatch.undo()
    found = [
        restore(copy) for copy in sorted(copies.iterdir(), key=lambda p: int(p.name))
    ]
    assert len(found) >= 10
    assert found == sorted(found)  # type: ignore[type-var]
    assert set(found) == {6, 9}
    assert not list(copies.glob("*/steps/.*"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.parametrize("name", ["save_file", "write_checksums", "fsync"])
def test_a_full_disk_is_one_line_and_the_older_ones_stay(
    tmp_path, monkeypatch, name, error
):
    save(tmp_path, 3)

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    owners = {"save_file": checkpoint, "fsync": os, "write_checksums": checksums}
    with monkeypatch.context() as full:
        full.setattr(owners[name], name, refuse)
        with pytest.raises(CheckpointError, match=r"No space left.*is step 3: free"):
            save(tmp_path, 6)
    assert [p.name for p in (tmp_path / "steps").iterdir()] == ["3"]
    assert restore(tmp_path) == 3


def test_the_newest_stay_and_none_that_training_went_back_behind(tmp_path):
    save(tmp_path, 3, 6, 9, 12)
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.list_steps() == [9, 12]
    flip(tmp_path / "steps" / "12" / "metrics.jsonl")
    save(tmp_path, 10)  # Stopped there.
    assert checkpoints.list_steps() == [9, 10]
    checkpoints.keep_newest(1)
    assert checkpoints.list_steps() == [10]
    for name in ("notes", "007", "²", ".11.tmp"):
        (tmp_path / "steps" / name).mkdir()
    assert checkpoints.list_steps() == [10]


def test_others_may_read_a_checkpoint(tmp_path):
    save(tmp_path, 3)
    for name in NAMES:
        assert (tmp_path / "steps" / "3" / name).stat().st_mode & 0o044
    names = json.loads((tmp_path / "steps" / "3" / "checksums.json").read_text())
    assert set(names) == {*NAMES} - {"checksums.json"}
