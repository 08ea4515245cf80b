"""Locks of cells, so that several processes can share a study.

A lock is a file that is created exclusively; it contains host, process and heartbeat.
The next process takes over a lock that has not been renewed for ten minutes, or whose
process ran on the same host and has ended. The hosts' clocks must agree to within a few
minutes.
"""

import contextlib
import dataclasses
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sweet_jax.system.files import FileError, format_json, read_as, write_json

STALE_SECONDS = 600.0
BEAT_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class _Holder:
    host: str
    process: Annotated[int, Field(gt=0, lt=2**31)]
    heartbeat: float


class CellLocks:
    """The locks of a study folder."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder.

        Args:
            folder: the folder of all locks.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Holds the lock of a cell; yields False if another process has it."""
        path = self._folder / f"{name}.json"
        if not self._take(path):
            yield False
            return
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(path, stop), daemon=True)
        beating.start()
        try:
            yield True
        finally:
            stop.set()
            beating.join()
            path.unlink(missing_ok=True)

    def describe(self, name: str) -> str | None:
        """Returns host and process that run a cell; None if none does."""
        holder = _read(self._folder / f"{name}.json")
        if holder is None or not _is_alive(holder):
            return None
        return f"process {holder.process} on {holder.host}"

    def _take(self, path: Path) -> bool:
        """Creates the lock; replaces a stale one."""
        # Under another lock, so that two processes cannot both take over a stale lock.
        with (self._folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            holder = _read(path)
            if holder is not None and _is_alive(holder):
                return False
            path.unlink(missing_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(format_json(dataclasses.asdict(_make_holder())))
            return True


def _make_holder() -> _Holder:
    return _Holder(socket.gethostname(), os.getpid(), time.time())


def _beat(path: Path, stop: threading.Event) -> None:
    """Renews the lock until `stop` is set."""
    while not stop.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # A full disk; the next beat tries again.
            write_json(path, dataclasses.asdict(_make_holder()))


def _read(path: Path) -> _Holder | None:
    """Returns the holder of a lock; None if a killed process left it incomplete."""
    try:
        return read_as(path, _Holder)
    except FileError:
        return None


def _is_alive(holder: _Holder) -> bool:
    if time.time() - holder.heartbeat > STALE_SECONDS:
        return False
    if holder.host != socket.gethostname():
        return True
    try:
        os.kill(holder.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # The process exists, of another user.
        pass
    return True
