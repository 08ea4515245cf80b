"""What every command does with its process: streams, signals, caches, exit status.

0: done; 1: a bug of ours, with its traceback; 2: an input, an option or a disk, in one
line; 75: stopped, in one line, and the same command goes on.
"""

import argparse
import codecs
import contextlib
import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from sweet_jax import caches, stopping
from sweet_jax.files import show

ERROR_STATUS = 2
_PACKAGE = str(Path(__file__).parent)
_STDOUT = "standard output"
_ESCAPE = "sweet_jax.escape"
# A value of the user's in an error may be longer than a screen.
_MOST_CHARACTERS = 2000
_REMEDIES = {
    errno.ENOSPC: "free space there, then run the same command again",
    errno.EDQUOT: "free space there, then run the same command again",
    errno.EFBIG: "allow larger files (ulimit -f), then run the same command again",
    errno.EACCES: "name another path, or change its permissions",
    errno.EPERM: "name another path, or change its permissions",
    errno.EROFS: "name another path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file",
    errno.ENAMETOOLONG: "use shorter names",
    errno.EBADF: "it is closed",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


@functools.cache
def prepare() -> str | None:
    """Prepares the process of a command, before it imports what takes seconds.

    Returns:
        A warning about the caches, for `run`.
    """
    _open_streams()
    stopping.catch_signals()
    # PyTorch is not needed here; without it transformers would say so each time.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    return caches.set_places()


def run(work: Callable[[], int | None]) -> NoReturn:
    """Runs a command to the end of its process.

    Args:
        work: returns the exit status; None is 0.
    """
    if warning := prepare():
        complain(f"warning: {warning}")
    try:
        status = guard(work)
        if stopping.is_unwinding():  # A library kept the exception to itself.
            stopping.end(stopping.MESSAGE)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and str(error):
            stopping.end(str(error))
        if isinstance(error, KeyboardInterrupt) or stopping.is_unwinding():
            stopping.end(stopping.MESSAGE)
        raise
    stopping.finish(status)
    sys.exit(status)


def guard(work: Callable[[], int | None]) -> int:
    """Does the work of a command; a user's error is one line and status 2.

    A ValueError of a library is a complaint about our code: a bug of ours, and raised.
    """
    try:
        try:
            status = work() or 0
        except SystemExit as stop:  # absl's and argparse's.
            status = stop.code if isinstance(stop.code, int) else 0
        sys.stdout.flush()
    except (ValueError, OSError) as error:
        if stopping.is_unwinding():
            raise
        if isinstance(error, ValueError) and not is_raised_here(error):
            raise
        is_closed = isinstance(error, BrokenPipeError) and error.filename == _STDOUT
        # A closed output pipe (`| head`) ends the command quietly.
        status = 0 if is_closed else report(error)
        _drop_output()
    return status


def say(text: str) -> None:
    """Prints lines of a result; names in them cannot control the terminal."""
    print("\n".join(map(show, text.split("\n"))))


def tell(text: str) -> None:
    """Prints lines to standard error, if there is one; see `say`."""
    with contextlib.suppress(OSError):  # There is nowhere left to say it.
        print("\n".join(map(show, text.split("\n"))), file=sys.stderr, flush=True)


def complain(line: str) -> None:
    """Prints one line of bounded length to standard error."""
    line = " ".join(line.split())
    if len(line) > _MOST_CHARACTERS:
        half = _MOST_CHARACTERS // 2
        line = f"{line[:half]} ... {line[-half:]}"
    tell(line)


def report(error: BaseException) -> int:
    """Prints a user's error as one line; returns the exit status."""
    is_key = isinstance(error, KeyError) and error.args
    text = str(error.args[0]) if is_key else str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or ''}: {error.strerror}".lstrip(": ")
        if error.errno in _REMEDIES:
            text += f": {_REMEDIES[error.errno]}"
    complain(f"error: {text}")
    return ERROR_STATUS


def is_raised_here(error: BaseException) -> bool:
    """Whether our own code raised the error, not a library it called."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line, as of every command."""

    def error(self, message: str) -> NoReturn:
        """Raises ValueError, which becomes the line."""
        raise ValueError(f"{message}: see --help")


class _Output(TextIOWrapper):
    """Standard output, whose errors say that they are its own."""

    def write(self, text: str, /) -> int:
        with _named_output():
            return super().write(text)

    def flush(self) -> None:
        with _named_output():
            super().flush()


@contextlib.contextmanager
def _named_output() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = _STDOUT
        raise


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Writes what the terminal's alphabet lacks as `\u00e9`, which JSON reads, too."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    units = memoryview(text.encode("utf-16", "surrogatepass")).cast("H")[1:]
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


codecs.register_error(_ESCAPE, _escape)


def _open_streams() -> None:
    """Makes the standard streams usable, whatever the caller has closed.

    Until then the next file that is opened would take the number of a closed stream. In
    its place comes one that cannot be used in the stream's direction: reading from a
    closed input, or printing to a closed output, is an error like any other.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:  # Only if a lower one is open again.
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    out = sys.stdout
    if out is None:
        sys.stdout = _Output(
            open(1, "wb", closefd=False),  # noqa: SIM115
            encoding="utf-8",
            errors=_ESCAPE,
        )
    elif isinstance(out, TextIOWrapper):  # A test may have put its own there.
        sys.stdout = _Output(
            out.buffer,
            encoding=out.encoding,
            errors=_ESCAPE,
            line_buffering=out.line_buffering,
            write_through=out.write_through,
        )
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(errors=_ESCAPE)


def _drop_output() -> None:
    """Leaves nothing to the interpreter's exit that could fail there."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
