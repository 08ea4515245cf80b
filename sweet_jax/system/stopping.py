"""Stopping a command: one line on the terminal and exit status 75, within seconds.

SIGTERM, SIGINT (ctrl-C) and SIGHUP (the terminal is closed) raise `Stopped` in the main
thread, so temporary files and locks are cleaned up as after an error. Libraries may
swallow the exception, and Python runs no handler while XLA compiles, so a thread ends
the process a few seconds later. Nothing is lost, since files are written atomically.
Training gets more time, to finish and save its step. A second signal ends the process
at once.
"""

import atexit
import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

STOPPED_STATUS = 75  # EX_TEMPFAIL: the same command resumes.
MESSAGE = "stopped; the same command goes on from there"

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Slurm and Kubernetes kill a process 30 s after asking it to stop.
_HELD_SECONDS = 25.0
_UNWIND_SECONDS = 4.0
# `timeout` and a terminal may send one signal twice: to a process and to its group.
_TWICE_SECONDS = 0.5
_POLL_SECONDS = 0.1


class Stopped(KeyboardInterrupt):
    """The process was asked to stop; the message says how to resume."""

    def __init__(self, message: str = MESSAGE) -> None:
        """Sets the last line that the command prints."""
        super().__init__(message)


class _State:
    """Signal state of this process; replaced when it starts to catch signals.

    Attributes:
        catches: whether this process catches the signals.
        asked: set by the first signal.
        holds: the number of `hold` contexts that are entered.
        limit: the `time.monotonic` at which the process is ended by force.
        unwinding: whether `Stopped` was raised; then nothing more is printed.
        status: the exit status once the command has done its work; None before.
        stderr: a copy of descriptor 2, for the last line.
        is_shared: whether a library handles SIGTERM, too.
        tell_library: the library's handler.
        hooks: called before the process exits with status 75.
        line_lock: held by the thread that prints the last line.
    """

    def __init__(self) -> None:
        self.catches = False
        self.asked = threading.Event()
        self.holds = 0
        self.limit = math.inf
        self.unwinding = False
        self.status: int | None = None
        self.stderr = 2
        self.is_shared = False
        self.tell_library: Callable[[int], None] | None = None
        self.hooks: list[Callable[[], None]] = []
        self.line_lock = threading.Lock()


_state = _State()


def catch_signals() -> None:
    """Makes the signals stop this process cleanly; for commands only."""
    global _state
    if _state.catches:
        return
    _state = _State()
    _state.catches = True
    _state.stderr = os.dup(2)
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    threading.Thread(target=_watch, args=(readable,), daemon=True).start()
    # The interpreter writes to it even while the main thread is in C++.
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in _SIGNALS:
        # `nohup` ignores SIGHUP on purpose. Shells ignore SIGINT for background
        # commands, but a SIGINT sent to one is still meant to stop it.
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        signal.signal(number, _handle)
    _silence_hooks()
    # Registered first, so it runs last. The rest of the interpreter's exit takes
    # seconds, during which signals have their default effect again.
    atexit.register(_exit_finished)


@contextlib.contextmanager
def hold() -> Iterator[Callable[[], bool]]:
    """Delays `Stopped` until the end; yields a function: has a signal come?

    The body must call it every few seconds and leave cleanly. Outside of a command (in
    a notebook) only SIGTERM is delayed.

    Raises:
        Stopped: at the end, if a signal has come and the body raised nothing.
    """
    state, previous = _state, None
    is_main = threading.current_thread() is threading.main_thread()
    if not state.catches:
        state.asked.clear()
        if is_main and not state.is_shared:
            previous = signal.signal(signal.SIGTERM, lambda *_: state.asked.set())
    state.holds += 1
    try:
        yield state.asked.is_set
    except KeyboardInterrupt:
        _begin_unwinding(state)
        raise
    finally:
        state.holds -= 1
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    if state.asked.is_set():
        _begin_unwinding(state)
        raise Stopped


def extend(seconds: float) -> None:
    """Gives the cleanup after `Stopped` more time than the usual few seconds."""
    _state.limit = max(_state.limit, time.monotonic() + seconds + _UNWIND_SECONDS)


def share_sigterm() -> None:
    """Catches SIGTERM again after a library replaced our handler; both handlers run.

    jax's handler tells the other hosts of a run, so that all stop after the same step.
    Outside of a command only the library handles the signal.
    """
    _state.is_shared = True
    if not _state.catches:
        return
    import ctypes  # Imported late: this module must load fast, to catch signals early.

    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    taken = libc.signal(signal.SIGTERM, None)
    signal.signal(signal.SIGTERM, _handle)
    if taken not in (None, 1):  # The values of SIG_DFL and SIG_IGN.
        _state.tell_library = ctypes.CFUNCTYPE(None, ctypes.c_int)(taken)


def call_before_end(hook: Callable[[], None]) -> None:
    """Registers a hook that runs before a stopped process exits, for a few seconds."""
    _state.hooks.append(hook)


def end(message: str) -> NoReturn:
    """Prints a line and ends the process with status 75.

    It skips the interpreter's exit, which waits for compiling threads.
    """
    for act in (sys.stdout.flush, *_state.hooks):
        with contextlib.suppress(Exception):
            act()
    _end_now(message)


def is_unwinding() -> bool:
    """Whether `Stopped` was raised; any later error is a consequence."""
    return _state.unwinding


def finish(status: int) -> None:
    """Marks the work as done: from now on a signal only speeds up the exit."""
    _state.status = status


def _exit_finished() -> None:
    if _state.status is None:
        return
    # What others have printed since; a command's own output is flushed already.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(_state.status)


def _handle(signum: int, frame: FrameType | None) -> None:
    state = _state
    if state.status is not None:
        os._exit(state.status)
    if state.asked.is_set():
        return  # `_watch` handles a second signal.
    state.asked.set()
    if state.tell_library is not None:
        state.tell_library(signal.SIGTERM)
    if state.holds:
        return
    _begin_unwinding(state)
    if _is_importing(frame):
        end(MESSAGE)  # Compiled modules crash if their initialisation is interrupted.
    raise Stopped


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _begin_unwinding(state: _State) -> None:
    """Gives the main thread a few seconds to clean up; nothing more is printed."""
    if not state.catches:
        return
    state.unwinding = True
    state.limit = time.monotonic() + _UNWIND_SECONDS
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _watch(readable: int) -> None:
    """Ends the process at its limit, or at a second signal."""
    first = math.inf
    while True:
        ready, _, _ = select.select(
            [readable], [], [], None if first == math.inf else _POLL_SECONDS
        )
        now = time.monotonic()
        came = ready and any(byte in _SIGNALS for byte in os.read(readable, 64))
        if came and first == math.inf:
            first = now
            seconds = _HELD_SECONDS if _state.holds else _UNWIND_SECONDS
            _state.limit = min(_state.limit, now + seconds)
        elif (came and now > first + _TWICE_SECONDS) or now > _state.limit:
            if _state.status is not None:
                os._exit(_state.status)
            _end_now(MESSAGE)


def _end_now(message: str) -> NoReturn:
    # Never released, so that only one thread prints the line.
    if _state.line_lock.acquire(blocking=False):
        # A terminal's ^C and a progress bar end without a new line.
        start = "\n" if os.isatty(_state.stderr) else ""
        with contextlib.suppress(OSError):
            # A reader that has stopped reading must not keep the process alive.
            if select.select([], [_state.stderr], [], 1.0)[1]:
                os.write(_state.stderr, f"{start}{message}\n".encode())
        os._exit(STOPPED_STATUS)
    time.sleep(1.5)
    os._exit(STOPPED_STATUS)


def _silence_hooks() -> None:
    """Keeps Python from printing a `Stopped` that could not be caught.

    It may be raised in a destructor, or while a module is imported.
    """
    previous_hook, previous_unraisable = sys.excepthook, sys.unraisablehook

    def excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if isinstance(error, KeyboardInterrupt) or _state.unwinding:
            end(MESSAGE)
        previous_hook(kind, error, trace)

    def unraisablehook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Stopped):
            previous_unraisable(unraisable)

    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook


def _block_signals() -> None:
    """Runs before a fork: a signal to the child must not reach us through the pipe."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _leave_to_parent() -> None:
    """Restores default signal handling in a forked child, such as a pool worker."""
    global _state
    if _state.catches:
        _state = _State()
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    _unblock_signals()


os.register_at_fork(
    before=_block_signals,
    after_in_parent=_unblock_signals,
    after_in_child=_leave_to_parent,
)
