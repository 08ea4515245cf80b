"""Reads a study folder: the plan, and what each of its cells has left.

    STUDY/plan.json
    STUDY/cells/NAME/cell.json, results.json, logits_test.npz, ...

A cell that cannot be read is a failed cell with its reason; only a plan that cannot be
read stops the reading.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.arrays import LogitBank
from sweet_jax.system.checksums import check_recorded, read_sealed
from sweet_jax.system.files import FileError, read_object

SCHEMA = 1
PLAN = "plan.json"
STATUS = "cell.json"
PLAN_REMEDY = "delete it and repeat the study's command"
STATUS_REMEDY = "delete it and repeat the study's command"
REMEDY = f"delete {STATUS} beside it and repeat the study's command, or copy it again"
# Of a cell, what a study reads.
READ_FILES = ("results.json", "logits_test.npz", "logits_calibration.npz")
# Of results.json, what a study reads; fields that older files lack are not among them.
_RESULT_FIELDS = (
    "schema", "method", "method_label", "metric", "seed", "exit_layers", "exits",
    "curves", "at_speedup", "area", "majority", "label_names", "seconds",
)  # fmt: skip


class StudyError(ValueError):
    """A study cannot be read: one line with where, why and what to do."""


class CellError(ValueError):
    """A cell cannot be used: one line that stands in the study's list of failures."""


@dataclasses.dataclass(frozen=True)
class CellEntry:
    """One planned run.

    Attributes:
        name: of its directory under `cells`.
        purpose: `score` (enters averages) or `rates` (a search of learning rates).
        task: name of the task.
        encoder: name of the encoder.
        train_size: training examples asked for.
        method: label of the method, such as `sweet(a=0.2)`.
        seed: of the run.
    """

    name: str
    purpose: str
    task: str
    encoder: str
    train_size: int
    method: str
    seed: int


@dataclasses.dataclass(frozen=True)
class FinishedCell:
    """A run that is there.

    Attributes:
        entry: what was planned.
        results: results.json.
        bank: outputs on the test rows, by rising row id.
        peak_memory_bytes: of the process that ran it; None where not known.
    """

    entry: CellEntry
    results: dict[str, Any]
    bank: LogitBank
    peak_memory_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study folder holds.

    Attributes:
        name: of the study.
        entries: all planned cells.
        choices: the plan's choices of learning rates, as they stand there.
        finished: cells that can be scored, in the plan's order.
        failed: name and error of cells that ended or read badly.
        missing: names of cells that have not been run.
    """

    name: str
    entries: list[CellEntry]
    choices: list[dict[str, Any]]
    finished: list[FinishedCell]
    failed: dict[str, str]
    missing: list[str]


def read_study(folder: Path) -> Study:
    """Reads the plan and the cells of a study.

    Raises:
        StudyError: there is no plan, or it is damaged or of a newer schema.
    """
    plan = _read_plan(folder / PLAN)
    entries = [_read_entry(folder, row) for row in plan["cells"]]
    _check_distinct(folder, entries)
    study = Study(str(plan["name"]), entries, plan["choices"], [], {}, [])
    for entry in entries:
        path = folder / "cells" / entry.name
        try:
            if not (path / STATUS).exists():
                study.missing.append(entry.name)
                continue
            status = _read_status(path)
            # A search of rates is read by the plan's choices, not by averages.
            if entry.purpose == "score":
                if not (path / "results.json").exists():
                    study.missing.append(entry.name)
                    continue
                study.finished.append(_read_cell(path, entry, status))
        except (CellError, FileError) as error:
            study.failed[entry.name] = str(error)
    return study


def _read_plan(path: Path) -> dict[str, Any]:
    if not path.parent.is_dir():
        what = "is not a directory" if path.parent.exists() else "does not exist"
        raise StudyError(f"{path.parent} {what}: give the directory of a study")
    if not path.exists():
        raise StudyError(
            f"{path.parent} is not a study (no plan.json in it): give the directory"
            " that a study has written"
        )
    try:
        plan = read_sealed(path, PLAN_REMEDY)
    except FileError as error:
        raise StudyError(str(error)) from error
    if plan.get("schema") != SCHEMA:
        raise StudyError(
            f"{path} has schema {plan.get('schema')}, this version reads {SCHEMA}:"
            " update sweet_jax"
        )
    kinds = (("name", str), ("cells", list), ("choices", list))
    wrong = [name for name, kind in kinds if not isinstance(plan.get(name), kind)]
    if wrong:
        raise StudyError(f"{path} lacks {', '.join(wrong)}: repeat the study's command")
    return plan


def _read_entry(folder: Path, row: Any) -> CellEntry:
    fields = dataclasses.fields(CellEntry)
    wrong = [
        field.name
        for field in fields
        if not isinstance(row, dict) or type(row.get(field.name)) is not field.type
    ]
    if wrong:
        raise StudyError(
            f"{folder / 'plan.json'}: a cell lacks {', '.join(wrong)}: repeat the"
            " study's command"
        )
    return CellEntry(**{field.name: row[field.name] for field in fields})


def _check_distinct(folder: Path, entries: list[CellEntry]) -> None:
    seen: dict[object, str] = {}
    for entry in entries:
        if entry.purpose != "score":
            continue
        key = dataclasses.replace(entry, name="")
        if key in seen:
            raise StudyError(
                f"{folder / 'plan.json'}: cells {seen[key]} and {entry.name} have the"
                " same task, encoder, size, method and seed: keep one of them"
            )
        seen[key] = entry.name


def _read_status(path: Path) -> dict[str, Any]:
    """Returns cell.json of a finished cell."""
    status = read_sealed(path / STATUS, STATUS_REMEDY)
    if status.get("status") != "finished":
        error = str(status.get("error") or "no error was written down")
        raise CellError(" ".join(error.split()))
    return status


def _read_cell(path: Path, entry: CellEntry, status: dict[str, Any]) -> FinishedCell:
    for name in ("results.json", "logits_test.npz"):
        check_recorded(path, name, REMEDY)
    results = read_object(path / "results.json", REMEDY)
    missing = [name for name in _RESULT_FIELDS if name not in results]
    if missing:
        raise CellError(f"{path / 'results.json'} lacks {', '.join(missing)}")
    if results["schema"] > SCHEMA:
        raise CellError(
            f"{path / 'results.json'} has schema {results['schema']}, this version"
            f" reads up to {SCHEMA}"
        )
    found = (results["method_label"], results["seed"])
    if found != (entry.method, entry.seed):
        raise CellError(
            f"{path / 'results.json'} is of {found[0]} with seed {found[1]}, planned"
            f" was {entry.method} with seed {entry.seed}"
        )
    memory = status.get("peak_memory_bytes")
    return FinishedCell(entry, results, _read_bank(path / "logits_test.npz"), memory)


def _read_bank(path: Path) -> LogitBank:
    bank = LogitBank.load(path, REMEDY)
    # Two runs may have collected the rows in different orders.
    return bank.select(np.argsort(bank.row_ids, kind="stable"))
