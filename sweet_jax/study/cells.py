"""A cell is run: a process of its own in a work directory of its own.

Its own process, so that a crash stops one cell, an accelerator's memory is given back,
and the peak of memory is the cell's. What is left of it: the run's own files, and
cell.json with how it ended.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.metrics import score_predictions
from sweet_jax.settings.fields import Settings, to_dict
from sweet_jax.study.folder import READ_FILES, REMEDY, STATUS, STATUS_REMEDY
from sweet_jax.system import stopping
from sweet_jax.system.checksums import (
    check_recorded,
    find_intact,
    read_sealed,
    write_sealed,
)
from sweet_jax.system.files import read_object

SCHEMA = 1
FINISHED = "finished"
FAILED = "failed"
_PROCESS = "sweet_jax.commands.study_cell"
# What a cell may take to stop: a step and its checkpoint. It ends itself before that.
_STOP_SECONDS = 30.0


def read_status(folder: Path) -> dict[str, Any] | None:
    """Returns how the cell in a work directory ended; None if it has not."""
    path = folder / STATUS
    return read_sealed(path, STATUS_REMEDY) if path.is_file() else None


def is_finished(folder: Path) -> bool:
    """Whether the cell in a work directory is finished, and cell.json says so.

    Without it, a run that looks finished may be of a process that has not ended yet.
    """
    status = read_status(folder)
    return status is not None and status["status"] == FINISHED


def can_adopt(folder: Path) -> bool:
    """Whether there is a finished run, its files whole, without cell.json.

    `sweet_jax.main` made it, the study was killed between the two, or the process that
    works on the cell is about to write it.
    """
    return (
        read_status(folder) is None
        and (folder / "report.html").is_file()
        and find_intact(folder, READ_FILES) == frozenset(READ_FILES)
    )


def adopt_cell(folder: Path) -> None:
    """Writes the status of a finished run that has none."""
    seconds = sum(_read_results(folder)["seconds"].values())
    write_sealed(
        folder / STATUS,
        {
            "schema": SCHEMA,
            "status": FINISHED,
            "error": None,
            "peak_memory_bytes": None,
            "seconds": round(seconds, 1),
        },
    )


def run_cell(settings: Settings, folder: Path, log: Path) -> dict[str, Any]:
    """Runs a cell, or what is left of it, and returns its status.

    Args:
        settings: of the run.
        folder: its work directory.
        log: file that its output is added to.

    Raises:
        Stopped: this process, or the cell's, was asked to stop; the cell has ended.
    """
    (folder / STATUS).unlink(missing_ok=True)  # Of an attempt that failed.
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", _PROCESS, f"--workdir={folder}"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C reaches a whole process group; the cell hears of it from us, once.
            process_group=0,
        )
        try:
            assert process.stdin is not None
            # One that ended at once has its say in the log.
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(json.dumps(to_dict(settings)).encode())
            _, wait_status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _stop(process)
            raise
        process.returncode = os.waitstatus_to_exitcode(wait_status)
    if process.returncode == stopping.STOPPED_STATUS:
        raise stopping.Stopped
    failed = process.returncode != 0
    status = {
        "schema": SCHEMA,
        "status": FAILED if failed else FINISHED,
        "error": find_error(log, process.returncode) if failed else None,
        # Linux counts in KiB, macOS in bytes.
        "peak_memory_bytes": usage.ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        "seconds": round(time.perf_counter() - start, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / STATUS, status)
    return status


def score_selection(folder: Path) -> float:
    """Returns the mean exit score on calibration part 0 of a finished run.

    The rows of part 0 are there for choices; the test rows are not looked at.
    """
    name = "logits_calibration.npz"
    check_recorded(folder, name, REMEDY)
    bank = LogitBank.load(folder / name, REMEDY).select_part(0)
    metric = _read_results(folder)["metric"]
    answers_NE = bank.logits.argmax(axis=2)
    return float(
        np.mean([score_predictions(metric, bank.labels, a_N) for a_N in answers_NE.T])
    )


def _read_results(folder: Path) -> dict[str, Any]:
    check_recorded(folder, "results.json", REMEDY)
    return read_object(folder / "results.json", REMEDY)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops a cell's process and waits for its end."""
    stopping.extend(_STOP_SECONDS)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find_error(log: Path, exit_status: int) -> str:
    """Returns why a cell failed, in a line."""
    if exit_status < 0:
        return f"killed by {signal.Signals(-exit_status).name}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    return f"exit status {exit_status}: {lines[-1] if lines else 'no output'}"[:500]
