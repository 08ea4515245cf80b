"""Writes a TensorBoard event file, if tensorboardX is installed."""

import contextlib
import importlib.util
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Board:
    """Writes scalars for TensorBoard; a full disk stops only this file, not training.

    It does not use tensorboardX's SummaryWriter, whose thread and exit handler print
    tracebacks when the disk is full.
    """

    def __init__(self, directory: Path) -> None:
        """Opens a new event file in the directory; if tensorboardX is there."""
        self._writer: Any = None
        if importlib.util.find_spec("tensorboardX") is None:
            return
        from tensorboardX.event_file_writer import EventsWriter

        self._directory = directory
        with self._drop_on_error():
            directory.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(directory / "events"))

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes the scalars of a step."""
        if self._writer is None:
            return
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]
        from tensorboardX.summary import scalar

        with self._drop_on_error():
            for name, value in scalars.items():
                summary = scalar(name, value)
                self._writer.write_event(
                    Event(wall_time=time.time(), step=step, summary=summary)
                )

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._drop_on_error():
                writer.close()

    @contextlib.contextmanager
    def _drop_on_error(self) -> Any:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            logger.warning("%s is not written: %s", self._directory, reason)
            writer, self._writer = self._writer, None
            if writer is not None:
                with contextlib.suppress(OSError):  # Buffered data is lost.
                    writer.close()
