"""TensorBoard's file holds what was written; a full disk ends it and no training."""

import errno
import importlib.util
import logging
import os
import struct
from pathlib import Path

import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]

from sweet_jax.training.board import Board


def read_scalars(folder: Path) -> list[tuple[int, str, float]]:
    """Returns (step, name, value) as they lie in the one file of a board."""
    (file,) = folder.iterdir()
    data, found = file.read_bytes(), []
    while data:
        # A record is its length, a checksum, the event, a checksum.
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        data = data[12 + length + 4 :]
    return found


def test_what_was_written_is_read_back_by_step(tmp_path):
    board = Board(tmp_path / "run")
    board.add({"loss/exit_0": 0.5, "learning_rate": 0.25}, 1)
    board.add({"loss/exit_0": 0.125}, 7)
    board.close()
    assert read_scalars(tmp_path / "run") == [
        (1, "loss/exit_0", 0.5),
        (1, "learning_rate", 0.25),
        (7, "loss/exit_0", 0.125),
    ]


def test_a_closed_board_is_left_as_it_is(tmp_path):
    board = Board(tmp_path)
    board.add({"loss": 1.0}, 1)
    board.close()
    board.close()
    board.add({"loss": 9.0}, 2)
    assert read_scalars(tmp_path) == [(1, "loss", 1.0)]


def test_without_the_package_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    board = Board(tmp_path / "run")
    board.add({"loss": 1.0}, 1)
    board.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["write_event", "close"])
def test_a_full_disk_ends_the_board_alone_with_one_line(
    tmp_path, monkeypatch, caplog, name
):
    close = EventsWriter.close

    def fail(writer, *_):
        if name == "close":
            close(writer)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    board = Board(tmp_path / "run")
    monkeypatch.setattr(EventsWriter, name, fail)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            board.add({"loss": 1.0}, step)
        board.close()
    line = f"{tmp_path / 'run'} is not written: No space left on device"
    assert caplog.messages == [line]


def test_a_directory_that_cannot_be_made_ends_the_board_alone(tmp_path, caplog):
    (tmp_path / "run").write_text("a file")
    board = Board(tmp_path / "run")
    board.add({"loss": 1.0}, 1)
    board.close()
    assert caplog.messages == [f"{tmp_path / 'run'} is not written: File exists"]
