"""Claims: who works on which cell, so that several processes can share a study.

A claim is a file that only its maker may create; it holds host, process and a
heartbeat. Whoever meets a claim that has not been renewed for ten minutes, or whose
process on this very host is gone, takes it over. The hosts' clocks must agree to within
minutes.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sweet_jax.files import write_bytes

STALE_SECONDS = 600.0
BEAT_SECONDS = 30.0


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
        content = _read(self._folder / f"{name}.json")
        if content is None or not _is_alive(content):
            return None
        return f"process {content['process']} on {content['host']}"

    def _take(self, path: Path) -> bool:
        """Creates the claim, over a stale one if need be."""
        # One at a time judges and replaces: two that find the same stale claim must
        # not both take it.
        with (self._folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = _read(path)
            if content is not None and _is_alive(content):
                return False
            path.unlink(missing_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(_make_content())
            return True


def _make_content() -> str:
    return json.dumps(
        {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "heartbeat": time.time(),
        }
    )


def _beat(path: Path, stop: threading.Event) -> None:
    """Renews the claim until told to stop."""
    while not stop.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # A full disk; the next beat tries again.
            write_bytes(path, _make_content().encode())


def _read(path: Path) -> dict[str, str | int | float] | None:
    """Returns a claim; a half-written one of a killed process counts as none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fields = {"host", "process", "heartbeat"}
    return content if isinstance(content, dict) and fields <= content.keys() else None


def _is_alive(content: dict[str, str | int | float]) -> bool:
    if time.time() - float(content["heartbeat"]) > STALE_SECONDS:
        return False
    if content["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(content["process"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # It lives, and is another user's.
        pass
    return True
