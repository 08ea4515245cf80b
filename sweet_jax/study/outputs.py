"""What a study leaves: study.json, the page, and a small copy to keep."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.report import show_names, write_study_report
from sweet_jax.study import cells
from sweet_jax.study.aggregate import aggregate_study
from sweet_jax.study.folder import READ_FILES, REMEDY, StudyError
from sweet_jax.system.checksums import check_recorded, record
from sweet_jax.system.files import write_json

# Of a cell, all that an aggregation reads, and what the run was; cell.json follows.
KEPT = (
    "config.json",
    "results.json",
    "logits_calibration.npz",
    "logits_test.npz",
    "gradient_conflict.json",
)

_RECORDED = frozenset(("config.json", *READ_FILES))


def write_study(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Puts the finished cells of a study together.

    Processes that share a study may get here at the same time. Each begins again where
    a cell ended meanwhile, so that whoever writes last has read everything.

    Returns:
        The content of study.json, and the files written.

    Raises:
        StudyError: there is no plan, or no finished cell.
    """
    while True:
        read = _list_statuses(folder)
        record = show_names(aggregate_study(folder))
        write_json(folder / "study.json", record)
        paths = [folder / "study.json", *write_study_report(folder)]
        if _list_statuses(folder) == read:
            return record, paths


def _list_statuses(folder: Path) -> dict[Path, int]:
    """Returns the cells that have ended, and when."""
    ended = {}
    for path in (folder / "cells").glob(f"*/{cells.STATUS}"):
        with contextlib.suppress(FileNotFoundError):  # A cell that failed begins again.
            ended[path] = path.stat().st_mtime_ns
    return ended


def keep_study(folder: Path, target: Path) -> None:
    """Copies the plan and the small files of finished cells to `target`.

    The copy aggregates to the same numbers. Cells that are already there stay.

    Raises:
        StudyError: there is no plan, or `target` holds something else.
    """
    if not (folder / "plan.json").is_file():
        raise StudyError(f"{folder} holds no plan.json: give the folder of a study")
    if (
        target.exists()
        and not (target / "plan.json").is_file()
        and any(target.iterdir())
    ):
        raise StudyError(f"--keep={target} holds other files: give a new folder")
    for cell in sorted((folder / "cells").glob("*")):
        copy = target / "cells" / cell.name
        # Files of a cell that still runs would stay in the place of the finished ones.
        if cells.is_finished(copy) or not cells.is_finished(cell):
            continue
        copy.mkdir(parents=True, exist_ok=True)
        kept = [name for name in KEPT if (cell / name).is_file()]
        for name in kept:
            if name in _RECORDED:
                check_recorded(cell, name, REMEDY)
            _copy(cell / name, copy / name)
        record(copy, *_RECORDED.intersection(kept))  # The banks are compressed now.
        # Last, as a cell that has it is complete.
        shutil.copyfile(cell / cells.STATUS, copy / cells.STATUS)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "plan.json", target / "plan.json")


def _copy(source: Path, target: Path) -> None:
    """Copies a file; arrays are compressed, which halves them."""
    if source.suffix != ".npz":
        shutil.copyfile(source, target)
        return
    with np.load(source) as arrays:
        np.savez_compressed(target, **{name: arrays[name] for name in arrays.files})
