"""Claims: who works on which cell, so that several processes can share a study.

A claim is a file that only its maker may create; it holds host, process and a
heartbeat. Whoever meets a claim that has not been renewed for ten minutes, or whose
process on this very host is gone, takes it over. The hosts' clocks must agree to within
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
class _Claim:
    host: str
    process: Annotated[int, Field(gt=0, lt=2**31)]
    heartbeat: float


class Claims:
    """The claims of a study folder."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder.

        Args:
            folder: where the claims of all processes are.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Holds the claim of a cell while entered; yields False if another has it."""
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
        """Returns who works on a cell; None if nobody does."""
        claim = _read(self._folder / f"{name}.json")
        if claim is None or not _is_alive(claim):
            return None
        return f"process {claim.process} on {claim.host}"

    def _take(self, path: Path) -> bool:
        """Creates the claim, over a stale one if need be."""
        # One at a time judges and replaces: two that find the same stale claim must
        # not both take it.
        with (self._folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            claim = _read(path)
            if claim is not None and _is_alive(claim):
                return False
            path.unlink(missing_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(format_json(dataclasses.asdict(_make_claim())))
            return True


def _make_claim() -> _Claim:
    return _Claim(socket.gethostname(), os.getpid(), time.time())


def _beat(path: Path, stop: threading.Event) -> None:
    """Renews the claim until told to stop."""
    while not stop.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # A full disk; the next beat tries again.
            write_json(path, dataclasses.asdict(_make_claim()))


def _read(path: Path) -> _Claim | None:
    """Returns a claim; a half-written one of a killed process counts as none."""
    try:
        return read_as(path, _Claim)
    except FileError:
        return None


def _is_alive(claim: _Claim) -> bool:
    if time.time() - claim.heartbeat > STALE_SECONDS:
        return False
    if claim.host != socket.gethostname():
        return True
    try:
        os.kill(claim.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It lives, and is another user's.
        pass
    return True
