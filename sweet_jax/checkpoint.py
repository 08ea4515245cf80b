"""Checkpoints through orbax; nothing else in the package knows orbax.

A checkpoint is whole or absent: orbax writes into a temporary directory and renames
it. One that was damaged afterwards is skipped with a warning, newest to oldest.
"""

import contextlib
import logging as std_logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging


class CheckpointError(ValueError):
    """A checkpoint could not be written; the message says what is left."""


class Checkpoints:
    """The checkpoints of one training state in one directory."""

    def __init__(self, directory: Path, keep: int = 2) -> None:
        """Opens the directory; it is made at the first save.

        Args:
            directory: where the step directories live.
            keep: how many of the newest checkpoints stay.
        """
        self._directory = directory.absolute()
        self._keep = keep
        self._checkpointer = ocp.StandardCheckpointer()

    def list_steps(self) -> list[int]:
        """Returns the steps that have a finished checkpoint, rising."""
        if not self._directory.is_dir():
            return []
        names = (path.name for path in self._directory.iterdir() if path.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, step: int, state: Any) -> None:
        """Writes the state of a step and removes all but the newest `keep`.

        Raises:
            CheckpointError: the disk refused; older checkpoints stay as they are.
        """
        path = self._directory / str(step)
        # Left by a run that went further and was set back.
        if path.exists() and jax.process_index() == 0:
            shutil.rmtree(path)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with _told_once():
                self._checkpointer.save(path, state)
                self._checkpointer.wait_until_finished()
        # tensorstore reports a full disk as ValueError, or as the runtime's own error.
        except (OSError, ValueError, RuntimeError) as error:
            left = [s for s in self.list_steps() if s != step]
            raise CheckpointError(
                f"could not save the checkpoint of step {step} in {self._directory}"
                f" ({_first_line(error)}); the newest good one is"
                f" {f'step {left[-1]}' if left else 'none'}: free space and run"
                " the same command again"
            ) from error
        self.keep_newest(self._keep)

    def restore_newest(
        self, make_target: Callable[[int], Any]
    ) -> tuple[int, Any] | None:
        """Returns (step, state) of the newest checkpoint that reads, or None.

        Args:
            make_target: step -> tree of arrays or ShapeDtypeStructs (with shardings)
                of the state at that step.
        """
        if jax.process_index() == 0:
            for leftover in self._directory.glob("*orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover, ignore_errors=True)  # Of a killed process.
        for step in reversed(self.list_steps()):
            try:
                return step, self.restore(step, make_target(step))
            # A truncated step raises one of these by what is missing from it.
            except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
                logging.warning(
                    "checkpoint of step %d in %s does not read (%s): trying an older",
                    step,
                    self._directory,
                    _first_line(error),
                )
        return None

    def restore(self, step: int, target: Any) -> Any:
        """Returns the state of one step in the structure of `target`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        return self._checkpointer.restore(self._directory / str(step), abstract)

    def keep_newest(self, count: int) -> None:
        """Removes all but the newest `count` checkpoints."""
        if jax.process_index() == 0:
            for step in self.list_steps()[:-count]:
                shutil.rmtree(self._directory / str(step), ignore_errors=True)

    def close(self) -> None:
        """Ends orbax's threads."""
        self._checkpointer.close()


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """Keeps libraries quiet about a save that fails: its error is raised here.

    The threads of orbax log the same error with their stacks, and once its event loop
    is closed every other write prints a page of traceback about that, before and after
    the error is raised here. So they stay quiet where the body raises.
    """
    hook, handler = sys.unraisablehook, logging.get_absl_handler()

    def show(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    def is_no_stack(record: std_logging.LogRecord) -> bool:
        return not record.exc_info

    sys.unraisablehook = show
    handler.addFilter(is_no_stack)
    yield
    handler.removeFilter(is_no_stack)
    sys.unraisablehook = hook


def _first_line(error: BaseException) -> str:
    """Returns the error's first line, its middle left out where it is long."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 200 else f"{line[:60]} ... {line[-120:]}"
