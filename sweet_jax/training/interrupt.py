"""Stopping in good order: SIGTERM (a preempted machine) and several hosts."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_STATUS = 75  # EX_TEMPFAIL: run the same command again.


class Interrupted(Exception):  # noqa: N818 (no error: the run goes on later)
    """Training stopped after a step because it was asked to; the state is saved."""

    def __init__(self, step: int) -> None:
        """Keeps the number of steps done."""
        super().__init__(f"stopped after step {step}")
        self.step = step


class StopRequest:
    """Catches SIGTERM while it is entered; the loop asks after every step."""

    def __init__(self) -> None:
        """Starts unasked."""
        self._asked = threading.Event()
        self._previous: signal._HANDLER = None
        self._installed = False

    def __enter__(self) -> "StopRequest":
        """Installs the handler; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._handle)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the previous handler back."""
        if self._installed:
            signal.signal(signal.SIGTERM, self._previous)
            self._installed = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._asked.set()

    def is_set(self, step: int) -> bool:
        """Whether to stop after `step`; all hosts get the same answer."""
        if jax.process_count() > 1:
            # One host is preempted first: jax agrees on a step that all can reach.
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked.is_set()
