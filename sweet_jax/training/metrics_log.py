"""Output of training while it runs: metrics.jsonl, TensorBoard, a progress bar."""

import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sweet_jax.training.board import Board

logger = logging.getLogger(__name__)

# `phase` in the cost of what happens before the first step of a phase.
BEFORE_PHASES = -1


class MetricsLog:
    """Writes one entry per step and shows the run's progress.

    Terminals and notebooks get a progress bar; otherwise a line is logged about every
    tenth of the run. With several hosts, only process 0 writes and shows anything.
    """

    def __init__(
        self,
        path: Path | None,
        member: str,
        first_step: int,
        num_steps: int,
        quiet: bool,
    ) -> None:
        """Opens metrics.jsonl for appending."""
        quiet = quiet or path is None
        # Unbuffered, so that closing does not retry a write that a full disk refused.
        self._file = None if path is None else path.open("ab", buffering=0)
        self._member = member
        self._num_steps = num_steps
        self._start_step, self._start_time = first_step, time.perf_counter()
        self._last_time = self._start_time
        self._num_examples = 0.0
        self._lines_every = max(num_steps // 10, 1)
        self._quiet = quiet
        has_bar = sys.stderr.isatty() or _is_in_notebook()
        self._bar = tqdm(
            total=num_steps,
            initial=first_step,
            desc=member or "train",
            unit="step",
            disable=quiet or not has_bar,
        )
        self._prints_lines = not quiet and not has_bar
        self._board = None
        if path is not None:
            self._board = Board(path.parent / "tensorboard" / (member or "run"))

    def __enter__(self) -> "MetricsLog":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file, the bar and the board."""
        self.close()

    def write_cost(self, step: int, cost: dict[str, float | int]) -> None:
        """Writes the compilation cost of a phase, and starts timing its steps.

        Args:
            step: steps done before the phase starts or resumes.
            cost: `phase` (its first step, or BEFORE_PHASES), `compile_seconds`,
                `num_programs`, `flops` and `temporary_bytes`; `seconds` before phases.
        """
        self._append({"step": step, "member": self._member, "cost": cost})
        self._start_time = self._last_time = time.perf_counter()

    def write(self, step: int, row: dict[str, Any], num_examples: float) -> None:
        """Writes the entry of a step.

        Args:
            step: steps done.
            row: `epoch`, `loss` (per exit), `lte_loss` (per exit, if exits learn to
                exit), `learning_rate`, `gradient_norm`.
            num_examples: rows of the step, without padding.
        """
        now = time.perf_counter()
        # The mean so far: single steps cannot be timed, since each is read one step
        # late, and the last two together.
        self._num_examples += num_examples
        speed = self._num_examples / max(now - self._start_time, 1e-9)
        full = {"step": step, "member": self._member, **row}
        full["seconds"] = round(now - self._last_time, 4)
        full["examples_per_second"] = round(speed, 2)
        self._last_time = now
        self._append(full)
        losses = _format_losses(row["loss"])
        self._bar.set_postfix_str(
            f"loss {losses}, {speed:.0f} examples/s", refresh=False
        )
        self._bar.update(1)
        if self._prints_lines and (
            step % self._lines_every == 0 or step == self._num_steps
        ):
            self._print_line(step, losses, speed, now)
        if self._board is not None:
            scalars = {
                f"{name}/exit_{i}": loss
                for name in ("loss", "lte_loss")
                if name in row
                for i, loss in enumerate(row[name])
            }
            scalars["learning_rate"] = row["learning_rate"]
            self._board.add(scalars, step)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the time of the body from the seconds of training."""
        start = time.perf_counter()
        yield
        taken = time.perf_counter() - start
        self._start_time += taken
        self._last_time += taken

    def _append(self, row: dict[str, Any]) -> None:
        if self._file is None:
            return
        line = json.dumps(row).encode() + b"\n"
        try:
            while line:  # A write may be partial.
                line = line[self._file.write(line) :]
        except OSError as error:
            error.filename = self._file.name
            raise

    def _print_line(self, step: int, losses: str, speed: float, now: float) -> None:
        done = max(step - self._start_step, 1)
        left = (now - self._start_time) / done * (self._num_steps - step)
        logger.info(
            "%sstep %d/%d  loss %s  %.0f examples/s  %.0f s left",
            f"{self._member} " if self._member else "",
            step,
            self._num_steps,
            losses,
            speed,
            left,
        )

    def close(self) -> None:
        """Closes the file, the bar and the board; safe to call twice."""
        if self._file is not None:
            self._file.close()
        self._bar.close()
        if self._board is not None:
            self._board.close()


def _is_in_notebook() -> bool:
    """Whether this runs in a notebook, which shows standard error below the cell."""
    return type(sys.stderr).__module__.startswith("ipykernel.")


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """The cost of training, over all processes that worked on it.

    Attributes:
        seconds: time spent in steps.
        start_seconds: time spent before the first steps of phases, on the parameters
            that they start from.
        compile_seconds: time spent in tracing and compiling.
        flops: FLOPs of all steps and of what came before them, by XLA's analysis; 0 if
            the backend gives none.
        temporary_bytes: XLA's temporary memory of the largest step, per device.
        num_programs: number of compiled programs.
    """

    seconds: float
    start_seconds: float
    compile_seconds: float
    flops: float
    temporary_bytes: int
    num_programs: int


def read_cost(path: Path) -> TrainingCost:
    """Adds up the entries of metrics.jsonl; a resumed phase counts its FLOPs once."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    costs = [row for row in rows if "cost" in row]
    # The last entry of a phase replaces those of earlier processes. What comes before a
    # phase is known by its step.
    phases = {
        (
            row["member"],
            phase := row["cost"]["phase"],
            row["step"] if phase == BEFORE_PHASES else phase,
        ): row["cost"]
        for row in costs
    }
    return TrainingCost(
        seconds=sum(row["seconds"] for row in rows if "seconds" in row),
        start_seconds=sum(
            (c["seconds"] for c in phases.values() if "seconds" in c), 0.0
        ),
        compile_seconds=sum(row["cost"]["compile_seconds"] for row in costs),
        flops=sum(cost["flops"] for cost in phases.values()),
        temporary_bytes=max(cost["temporary_bytes"] for cost in phases.values()),
        num_programs=sum(cost["num_programs"] for cost in phases.values()),
    )


def _format_losses(losses: Sequence[float]) -> str:
    return " ".join(f"{loss:.3f}" for loss in losses)
