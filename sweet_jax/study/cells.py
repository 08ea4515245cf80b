"""Runs a cell in a separate process and a separate work directory.

With separate processes a crash stops only one cell, accelerator memory is released, and
peak memory can be measured per cell. A cell leaves the files of its run, and cell.json,
which records how it ended.
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

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.metrics import score_exits_alone
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
_PROCESS = ("sweet_jax", "study_cell")
# Time limit for a cell to stop itself: one step and its checkpoint take less.
_STOP_SECONDS = 30.0


def read_status(folder: Path) -> dict[str, Any] | None:
    """Returns how the cell in a work directory ended; None if it has not."""
    path = folder / STATUS
    return read_sealed(path, STATUS_REMEDY) if path.is_file() else None


def is_finished(folder: Path) -> bool:
    """Whether the cell in a work directory is finished, according to cell.json.

    A run without cell.json may look finished while its process is still running.
    """
    status = read_status(folder)
    return status is not None and status["status"] == FINISHED


def can_adopt(folder: Path) -> bool:
    """Whether there is a finished run with intact files, but without cell.json.

    Either `sweet_jax.main` made it, or the study was killed before it wrote cell.json,
    or a process that runs the cell is about to write it.
    """
    return (
        read_status(folder) is None
        and (folder / "report.html").is_file()
        and find_intact(folder, READ_FILES) == frozenset(READ_FILES)
    )


def adopt_cell(folder: Path) -> None:
    """Writes cell.json for a finished run that has none."""
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
    """Runs or resumes a cell; returns its status.

    Args:
        settings: settings of the run.
        folder: its work directory.
        log: file to which its output is appended.

    Raises:
        Stopped: this process or that of the cell was asked to stop; the cell has ended.
    """
    (folder / STATUS).unlink(missing_ok=True)  # From a failed attempt.
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *_PROCESS, f"--workdir={folder}"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C signals a whole process group; this process signals the cell
            # itself.
            process_group=0,
        )
        try:
            assert process.stdin is not None
            # A process that ended at once has written its error to the log.
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

    Part 0 is meant for such choices; the test rows are not read.

    Raises:
        ValueError: the run has no labelled calibration rows, or its files are damaged.
    """
    name = "logits_calibration.npz"
    check_recorded(folder, name, REMEDY)
    bank = LogitBank.load(folder / name, REMEDY).select_part(0)
    if not len(bank.labels):
        raise ValueError(
            f"{folder} has no labelled calibration rows to choose learning rates on:"
            " set data.calibration_examples to 4 or more"
        )
    return score_exits_alone(_read_results(folder)["metric"], bank)


def _read_results(folder: Path) -> dict[str, Any]:
    check_recorded(folder, "results.json", REMEDY)
    return read_object(folder / "results.json", REMEDY)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops the process of a cell and waits until it ends."""
    stopping.extend(_STOP_SECONDS)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find_error(log: Path, exit_status: int) -> str:
    """Returns the reason why a cell failed, in one line."""
    if exit_status < 0:
        return f"killed by {signal.Signals(-exit_status).name}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    return f"exit status {exit_status}: {lines[-1] if lines else 'no output'}"[:500]
