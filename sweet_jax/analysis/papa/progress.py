"""Progress of a pass over rows or of a training: a bar, or a line now and then."""

import logging
import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

_SECONDS_TO_FIRST, _SECONDS_BETWEEN = 2.0, 10.0


class Progress:
    """Shows how much of a step is done; use it as a context manager.

    A terminal gets a bar. Elsewhere a line is logged after 2 seconds, then about every
    10 seconds.
    """

    def __init__(self, title: str, total: int, unit: str, quiet: bool) -> None:
        """Starts the clock.

        Args:
            title: what is done.
            total: how many units there are.
            unit: of what, such as `row`.
            quiet: shows nothing.
        """
        self._title, self._total, self._unit = title, total, unit
        self._done = self._first = 0
        self._start = time.perf_counter()
        self._next = self._start + _SECONDS_TO_FIRST
        has_bar = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, desc=title, unit=unit, disable=quiet or not has_bar
        )
        self._prints_lines = not quiet and not has_bar
        if self._prints_lines:
            logger.info("%s: %s %ss", title, f"{total:,}", unit)

    def __enter__(self) -> "Progress":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the bar."""
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def add(self, number: int) -> None:
        """Counts further units."""
        self.reach(self._done + number)

    def reach(self, done: int, loss: float | None = None) -> None:
        """Shows that `done` units are done in all.

        Args:
            done: units, those of an earlier process included.
            loss: mean loss over the last few.
        """
        self._bar.update(done - self._done)
        self._done = done
        note = "" if loss is None else f"  loss {loss:.4f}"
        self._bar.set_postfix_str(note.strip(), refresh=False)
        now = time.perf_counter()
        if self._prints_lines and now >= self._next:
            self._next = now + _SECONDS_BETWEEN
            speed = (done - self._first) / (now - self._start)
            left = (self._total - done) / speed if speed else 0.0
            logger.info(
                "%s: %s %d/%d%s  %.0f s left",
                self._title,
                self._unit,
                done,
                self._total,
                note,
                left,
            )

    def start_at(self, done: int) -> None:
        """Sets the units that an earlier process has done, and the clock."""
        self._start = time.perf_counter()
        self._done = self._first = done
        self._bar.update(done)
