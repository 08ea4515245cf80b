"""Writes the outputs of a study: study.json, study.csv, the page, an archive."""

import contextlib
from pathlib import Path
from typing import Any

from sweet_jax.report import (
    format_study_markdown,
    show_names,
    write_study_report,
)
from sweet_jax.study import cells
from sweet_jax.study.aggregate import aggregate_study
from sweet_jax.study.archive import write_archive
from sweet_jax.study.folder import StudyError
from sweet_jax.study.measured_study import measure_study
from sweet_jax.study.table import make_table
from sweet_jax.system.files import read_bytes, write_bytes, write_json


def write_study(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Aggregates the finished cells of a study and writes all outputs.

    Several processes may do this at the same time. Each starts again if a cell has
    ended meanwhile, so that the last one to write has read all cells.

    Returns:
        The content of study.json, and the files written.

    Raises:
        StudyError: there is no plan, or no finished cell.
    """
    while True:
        read = _list_statuses(folder)
        measured = measure_study(folder)
        record = show_names(aggregate_study(measured))
        table = make_table(measured).to_csv(index=False, lineterminator="\n")
        paths = [folder / "study.json", folder / "study.csv"]
        write_json(paths[0], record)
        write_bytes(paths[1], table.encode())
        paths += write_study_report(folder)
        if _list_statuses(folder) == read:
            return record, paths


def _list_statuses(folder: Path) -> dict[Path, int]:
    """Returns the cells that have ended, with the time of their end."""
    ended = {}
    for path in (folder / "cells").glob(f"*/{cells.STATUS}"):
        with contextlib.suppress(FileNotFoundError):  # A failed cell was restarted.
            ended[path] = path.stat().st_mtime_ns
    return ended


def keep_study(folder: Path, record: dict[str, Any], target: Path) -> list[Path]:
    """Writes `NAME.zip`, and beside it the report in `NAME.md` and its picture.

    Args:
        folder: folder of the study, with its report.
        record: content of study.json.
        target: path of the archive; see `write_archive`.

    Returns:
        The written files.

    Raises:
        StudyError: see `write_archive`; or a file beside the archive already exists.
        FileError: a file of a cell is damaged.
    """
    page, picture = target.with_suffix(".md"), target.with_suffix(".png")
    if not target.exists():
        for path in (page, picture):
            if path.exists():
                raise StudyError(f"{path} exists without {target}: name another file")
    write_archive(folder, target)
    source = folder / "plots" / "study.png"
    shown = picture.name if source.is_file() else None
    write_bytes(page, format_study_markdown(record, shown).encode())
    if shown is None:
        return [target, page]
    write_bytes(picture, read_bytes(source))
    return [target, page, picture]
