"""The process of a command: streams, signals, caches, exit status.

Exit status 0: done. 1: a bug in our code, with a traceback. 2: a wrong input or option
or a disk error, in one line. 75: stopped, in one line; the same command resumes.
"""

import contextlib
import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from sweet_jax.system import caches, stopping, streams
from sweet_jax.system.files import show

ERROR_STATUS = 2
_PACKAGE = str(Path(__file__).parents[1])
# A user's value in an error message may be longer than a screen.
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
    """Prepares the process of a command, before it imports slow libraries.

    Returns:
        A warning about the caches, for `run`.
    """
    streams.open_streams()
    stopping.catch_signals()
    return caches.set_places()


def run(work: Callable[[], int | None]) -> NoReturn:
    """Runs a command, then exits the process.

    Args:
        work: the command; it returns the exit status, where None is 0.
    """
    if warning := prepare():
        complain(f"warning: {warning}")
    try:
        status = guard(work)
        if stopping.is_unwinding():  # A library swallowed the exception.
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
    """Runs a command and reports a user's error in one line, with status 2.

    A ValueError raised by a library means a bug in our code, so it is raised again.
    """
    try:
        try:
            status = work() or 0
        except SystemExit as stop:  # argparse raises it for --help.
            status = stop.code if isinstance(stop.code, int) else 0
        sys.stdout.flush()
    except (ValueError, OSError) as error:
        if stopping.is_unwinding():
            raise
        if isinstance(error, ValueError) and not is_raised_here(error):
            raise
        is_closed = (
            isinstance(error, BrokenPipeError) and error.filename == streams.STDOUT
        )
        # A closed output pipe (`| head`) ends the command quietly.
        status = 0 if is_closed else report(error)
        _drop_output()
    return status


def say(text: str) -> None:
    """Prints lines of a result, with control characters escaped."""
    print("\n".join(map(show, text.split("\n"))))


def tell(text: str) -> None:
    """Prints lines to standard error, if there is one; see `say`."""
    with contextlib.suppress(OSError):  # Standard error itself may be closed.
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


def _drop_output() -> None:
    """Flushes or drops the output, so that the interpreter's exit cannot fail on it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
