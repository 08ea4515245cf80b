"""What a reader may not do, noticed while it does it."""

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

# Above what the process has already: a hostile size must not be allocated.
_MORE_BYTES = 3 << 30
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_RUNS = (
    *("builtins.input", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"),
    *("pickle.find_class", "socket.connect", "socket.getaddrinfo", "os.fork"),
)
_CHANGES = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown"),
    *("os.link", "os.symlink", "os.truncate", "shutil.rmtree", "shutil.move"),
)
_BY_DESCRIPTOR = ("os.remove", "os.rmdir", "os.mkdir")
_LINKING = ("os.link", "os.symlink")


class Watch:
    """What happened while it was entered.

    Attributes:
        deeds: what a reader may not do, in words.
        seconds: how long it took.
    """

    def __init__(self, folder: Path, secret: Path, may_write: tuple[Path, ...]) -> None:
        """Watches nothing yet.

        Args:
            folder: what is hostile: no code of it may run.
            secret: a file that may not be opened.
            may_write: folders that may be written to.
        """
        self._folder = os.path.realpath(folder)
        self._secret = os.path.realpath(secret)
        self._may_write = tuple(os.path.realpath(path) for path in may_write)
        self.deeds: list[str] = []
        self.seconds = 0.0

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Takes an audit event of the interpreter."""
        if event in _RUNS:
            self.deeds.append(f"{event}{arguments!r}"[:200])
        elif event == "open":
            self._hear_open(*arguments)
        elif event in _BY_DESCRIPTOR and arguments[-1] >= 0:
            # Relative to an open folder, as rmtree works.
            base = os.readlink(f"/proc/self/fd/{arguments[-1]}")
            self._check_written(event, os.path.join(base, os.fsdecode(arguments[0])))
        elif event in _CHANGES:
            # What a link points to is not changed by it.
            changed = arguments[1:2] if event in _LINKING else arguments[:2]
            for path in changed:
                if isinstance(path, str | os.PathLike | bytes):
                    self._check_written(event, path)
        elif event == "exec":
            code = arguments[0]
            if isinstance(code, CodeType) and self._is_inside(code.co_filename):
                self.deeds.append(f"ran code of {code.co_filename}")
        elif event in ("import", "ctypes.dlopen"):
            for name in arguments[:2]:
                if isinstance(name, str) and "/" in name and self._is_inside(name):
                    self.deeds.append(f"{event} of {name}")

    def _hear_open(self, path: Any, mode: Any, flags: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        real = os.path.realpath(os.fsdecode(path))
        if real == self._secret:
            self.deeds.append(f"opened {path!r}")
        if isinstance(flags, int) and flags & _WRITING:
            self._check_written("open", path)

    def _check_written(self, event: str, path: Any) -> None:
        real = os.path.realpath(os.fsdecode(path))
        if event != "open":  # The entry is changed, not what it links to.
            folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
            real = os.path.join(os.path.realpath(folder), name)
        allowed = (*self._may_write, "/dev/null", "/dev/tty", "/proc/self")
        if not any(real == p or real.startswith(f"{p}/") for p in allowed):
            self.deeds.append(f"{event} of {real}")

    def _is_inside(self, name: str) -> bool:
        return os.path.realpath(name).startswith(f"{self._folder}/")


_active: Watch | None = None
_is_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active is not None:
        _active.hear(event, arguments)


class TooLong(BaseException):
    """The time is over; no handler of the reader's takes it for an error."""


@contextlib.contextmanager
def watching(watch: Watch, seconds: int) -> Iterator[None]:
    """Lets a watch hear all events of the body, within limits of time and memory.

    Raises:
        TooLong: the body did not end.
    """
    global _active, _is_installed
    if not _is_installed:
        # There is no way to take a hook back; it does nothing outside of a watch.
        sys.addaudithook(_hook)
        _is_installed = True

    def stop(*_: object) -> None:
        raise TooLong

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _MORE_BYTES
    previous: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    signal.alarm(seconds)
    start = time.perf_counter()
    _active = watch
    try:
        yield
    finally:
        _active = None
        watch.seconds = time.perf_counter() - start
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, previous)
