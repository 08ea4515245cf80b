"""Checkpoints: everything needed to resume training, in one folder per step.

    steps/12/state.safetensors   every array of the state, named by its path
    steps/12/metrics.jsonl       the metrics up to this step
    steps/12/checksums.json      sha256 of both

A folder is written under a temporary name, flushed to the disk and then renamed: a
killed process leaves it complete or absent. Files are verified before use; damaged
checkpoints are skipped with a warning, from the newest to the oldest.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sweet_jax.devices import share_number
from sweet_jax.system import checksums
from sweet_jax.system.errors import describe_reason
from sweet_jax.system.files import FileError, allow_reading, write_folder, write_whole

logger = logging.getLogger(__name__)

_STATE = "state.safetensors"
# Largest size allowed for a checkpoint's files beyond the arrays of its state.
_MOST_MORE_BYTES = 1 << 30
_NONE = -1


class CheckpointError(ValueError):
    """A checkpoint could not be written; the message names the newest good one."""


class Checkpoints:
    """The checkpoints of one training in one directory.

    With several hosts, process 0 writes, and tells the others which step to read.
    """

    def __init__(
        self, directory: Path, run: str = "", log: Path | None = None, keep: int = 2
    ) -> None:
        """Stores the arguments; the directory is made at the first save.

        Args:
            directory: contains one folder per step.
            run: digest of everything that the training depends on; checkpoints with
                another digest are skipped.
            log: a file that training appends to. Each checkpoint has a copy, which
                replaces the file when the checkpoint is restored.
            keep: number of newest checkpoints to keep.
        """
        self._directory, self._run, self._log, self._keep = directory, run, log, keep

    def list_steps(self) -> list[int]:
        """Returns the steps with a checkpoint, ascending; some may be damaged."""
        if not self._directory.is_dir():
            return []
        names = (path.name for path in self._directory.iterdir() if path.is_dir())
        return sorted(int(n) for n in names if n.isdecimal() and n == str(int(n)))

    def save(self, step: int, state: Any) -> None:
        """Writes the state of a step and removes all but the newest `keep`.

        Args:
            step: number of steps done.
            state: tree of arrays.

        Raises:
            CheckpointError: writing failed; older checkpoints are unchanged.
        """
        if jax.process_index() != 0:
            return
        arrays = {name: np.asarray(x) for name, x in _name_leaves(state).items()}
        try:
            with write_folder(self._directory / str(step)) as folder:
                save_file(arrays, folder / _STATE, metadata=self._describe(step))
                allow_reading(folder / _STATE)
                if self._log is not None:
                    shutil.copyfile(self._log, folder / self._log.name)
                checksums.write_checksums(folder)
                # Before the rename, so that a power failure leaves a complete folder or
                # none.
                for path in (*folder.iterdir(), folder):
                    _flush(path)
            _flush(self._directory)
        except OSError as error:
            left = [s for s in self.list_steps() if s != step]
            raise CheckpointError(
                f"could not save the checkpoint of step {step} in {self._directory}"
                f" ({describe_reason(error)}); the newest good one is"
                f" {f'step {left[-1]}' if left else 'none'}: free space and run"
                " the same command again"
            ) from error
        # Later steps are damaged, otherwise training would have resumed from them.
        self._keep_only([s for s in self.list_steps() if s <= step][-self._keep :])

    def restore_newest(
        self, make_target: Callable[[int], Any]
    ) -> tuple[int, Any] | None:
        """Returns (step, state) of the newest undamaged checkpoint, or None.

        Args:
            make_target: step -> tree of arrays or ShapeDtypeStructs of the state at
                that step; leaves with a sharding are placed, others stay on the host.
        """
        found = None
        if jax.process_index() == 0:
            found = self._find_newest(make_target)
        step = share_number(_NONE if found is None else found[0])
        if step == _NONE:
            return None
        if found is None:  # Process 0 found it.
            found = step, self._read(step, make_target(step))
        return found

    def keep_newest(self, count: int) -> None:
        """Removes all but the newest `count` checkpoints."""
        if jax.process_index() == 0:
            self._keep_only(self.list_steps()[-count:])

    def _find_newest(self, make_target: Callable[[int], Any]) -> tuple[int, Any] | None:
        for leftover in self._directory.glob(".*"):  # Left by a killed process.
            shutil.rmtree(leftover, ignore_errors=True)
        steps = self.list_steps()
        for i in range(len(steps) - 1, -1, -1):
            try:
                state = self._read(steps[i], make_target(steps[i]))
            except FileError as error:
                logger.warning("%s", error)
                continue
            if self._log is not None:
                with write_whole(self._log) as temporary:
                    folder = self._directory / str(steps[i])
                    shutil.copyfile(folder / self._log.name, temporary)
            return steps[i], state
        if steps:
            logger.warning(
                "no usable checkpoint in %s: training starts from the beginning",
                self._directory,
            )
        return None

    def _read(self, step: int, target: Any) -> Any:
        """Returns the verified state of a step in the structure of `target`.

        Raises:
            FileError: a file is missing or damaged, or belongs to another training.
        """
        folder, remedy = self._directory / str(step), "this checkpoint is skipped"
        needed = [_STATE] if self._log is None else [_STATE, self._log.name]
        wanted = _name_leaves(target)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in wanted.values())
        checksums.check_folder(folder, needed, remedy, size + _MOST_MORE_BYTES)
        path = folder / _STATE
        try:
            with safe_open(path, framework="np") as file:
                if file.metadata() != self._describe(step) or set(file.keys()) != set(
                    wanted
                ):
                    raise FileError(f"{path} belongs to another training: {remedy}")
                found = {name: file.get_tensor(name) for name in wanted}
        except (OSError, SafetensorError) as error:
            raise FileError(
                f"{path} is damaged ({describe_reason(error)}): {remedy}"
            ) from error
        for name, leaf in wanted.items():
            if (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype):
                raise FileError(f"{path} has another {name}: {remedy}")
        leaves = [_place(found[name], leaf) for name, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(target), leaves)

    def _describe(self, step: int) -> dict[str, str]:
        return {"step": str(step), "run": self._run}

    def _keep_only(self, steps: list[int]) -> None:
        for step in set(self.list_steps()).difference(steps):
            shutil.rmtree(self._directory / str(step), ignore_errors=True)


def _name_leaves(tree: Any) -> dict[str, Any]:
    """Returns path -> leaf, in the order of `jax.tree.leaves`."""
    leaves = jax.tree.leaves_with_path(tree)
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
    assert len(named) == len(leaves)
    return named


def _place(array: np.ndarray, target: Any) -> Any:
    """Puts the array where `target` is: on its devices, or on the host."""
    sharding = getattr(target, "sharding", None)
    if sharding is None:
        return array
    return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])


def _flush(path: Path) -> None:
    """Waits until a file, or the list of files of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
