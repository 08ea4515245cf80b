"""Reads a study folder: the plan and the files of its cells.

    STUDY/plan.json
    STUDY/cells/NAME/cell.json, results.json, logits_test.npz, ...

An unreadable cell counts as a failed cell, with the reason; only an unreadable plan is
an error.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from sweet_jax.arrays import LogitBank
from sweet_jax.system.checksums import check_recorded, read_sealed
from sweet_jax.system.files import FileError, check_schema, read_as, read_object

SCHEMA = 1
PLAN = "plan.json"
STATUS = "cell.json"
# Pattern of a cell's folder name: one component of a path, but neither "." nor "..".
CELL_NAME = r"[^/\x00]{3,255}|[^/\x00.]{1,2}"
PLAN_REMEDY = "delete it and repeat the study's command"
STATUS_REMEDY = "delete it and repeat the study's command"
REMEDY = f"delete {STATUS} beside it and repeat the study's command, or copy it again"
# Files of a cell that a study reads.
READ_FILES = ("results.json", "logits_test.npz", "logits_calibration.npz")


class StudyError(ValueError):
    """A study cannot be read; the message is one line."""


class CellError(ValueError):
    """A cell cannot be used; its one-line message is listed among the failures."""


@dataclasses.dataclass(frozen=True)
class CellEntry:
    """One planned run.

    Attributes:
        name: name of its directory in `cells`.
        purpose: `score` (used in averages) or `learning_rates` (part of a search).
        task: name of the task.
        encoder: name of the encoder.
        train_size: requested number of training examples.
        method: label of the method, such as `sweet(a=0.2)`.
        seed: seed of the run.
        encoder_learning_rate: learning rate that a search tries; None: none.
        exit_learning_rate: the same for the exits.
    """

    name: Annotated[str, Field(pattern=f"^({CELL_NAME})$")]
    purpose: str
    task: str
    encoder: str
    train_size: int
    method: str
    seed: int
    encoder_learning_rate: float | None
    exit_learning_rate: float | None


@dataclasses.dataclass(frozen=True)
class ChosenRates:
    """Learning rates that a search chose; None: those of the study's base."""

    encoder_learning_rate: float | None
    exit_learning_rate: float | None


@dataclasses.dataclass(frozen=True)
class TriedRates(ChosenRates):
    """Learning rates that a search tried, and their mean exit score on part 0."""

    score: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """Tried and chosen learning rates of a search, for one task and method."""

    task: str
    encoder: str
    train_size: int
    method: str
    tried: list[TriedRates]
    chosen: ChosenRates


@dataclasses.dataclass(frozen=True)
class PlanFile:
    """The content of plan.json.

    Attributes:
        name: name of the study.
        base: flat settings that all cells share.
        cells: cells of every shard.
        choices: choices of learning rates so far.
    """

    name: str
    base: dict[str, Any]
    cells: list[CellEntry]
    choices: list[Choice]


@dataclasses.dataclass(frozen=True)
class FinishedCell:
    """A finished run.

    Attributes:
        entry: its entry in the plan.
        results: content of results.json.
        bank: outputs on the test rows, by ascending row id.
        peak_memory_bytes: peak memory of its process; None if unknown.
    """

    entry: CellEntry
    results: dict[str, Any]
    bank: LogitBank
    peak_memory_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Study:
    """The content of a study folder.

    Attributes:
        name: name of the study.
        entries: all planned cells.
        choices: the choices of learning rates in the plan.
        finished: cells that can be scored, in the plan's order.
        failed: name and error of cells that failed or cannot be read.
        missing: names of cells that have not been run.
    """

    name: str
    entries: list[CellEntry]
    choices: list[Choice]
    finished: list[FinishedCell]
    failed: dict[str, str]
    missing: list[str]


def read_study(folder: Path) -> Study:
    """Reads the plan and the cells of a study.

    Raises:
        StudyError: there is no plan, or it is damaged or of a newer schema.
    """
    plan = read_plan(folder)
    _check_distinct(folder, plan.cells)
    study = Study(plan.name, plan.cells, plan.choices, [], {}, [])
    for entry in plan.cells:
        path = folder / "cells" / entry.name
        try:
            if not (path / STATUS).exists():
                study.missing.append(entry.name)
                continue
            status = _read_status(path)
            # Cells of a search are not averaged; the plan has their result.
            if entry.purpose == "score":
                if not (path / "results.json").exists():
                    study.missing.append(entry.name)
                    continue
                study.finished.append(_read_cell(path, entry, status))
        except (CellError, FileError) as error:
            study.failed[entry.name] = str(error)
    return study


def read_plan(folder: Path) -> PlanFile:
    """Reads the plan of a study.

    Raises:
        StudyError: there is none, or it is damaged or of a newer schema.
    """
    path = folder / PLAN
    if not folder.is_dir():
        what = "is not a directory" if folder.exists() else "does not exist"
        raise StudyError(f"{folder} {what}: give the directory of a study")
    if not path.exists():
        raise StudyError(
            f"{folder} is not a study, since it has no plan.json: give the directory"
            " that a study has written"
        )
    try:
        read_sealed(path, PLAN_REMEDY)
        return read_as(path, PlanFile, SCHEMA, PLAN_REMEDY)
    except FileError as error:
        raise StudyError(str(error)) from error


def _check_distinct(folder: Path, entries: list[CellEntry]) -> None:
    seen: dict[object, str] = {}
    for entry in entries:
        if entry.purpose != "score":
            continue
        key = (entry.task, entry.encoder, entry.train_size, entry.method, entry.seed)
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
        error = str(status.get("error") or "no error was recorded")
        raise CellError(" ".join(error.split()))
    return status


def _read_cell(path: Path, entry: CellEntry, status: dict[str, Any]) -> FinishedCell:
    for name in ("results.json", "logits_test.npz"):
        check_recorded(path, name, REMEDY)
    # Imported here, because report/ imports matplotlib, which other reads do not need.
    from sweet_jax.report.results_schema import check_results

    results = read_object(path / "results.json", REMEDY)
    check_schema(results, SCHEMA, path / "results.json", REMEDY)
    check_results(path / "results.json", results, REMEDY)
    found = (results["method_label"], results["seed"])
    if found != (entry.method, entry.seed):
        raise CellError(
            f"{path / 'results.json'} is of {found[0]} with seed {found[1]}, but the"
            f" plan has {entry.method} with seed {entry.seed}"
        )
    memory = status.get("peak_memory_bytes")
    return FinishedCell(entry, results, _read_bank(path / "logits_test.npz"), memory)


def _read_bank(path: Path) -> LogitBank:
    bank = LogitBank.load(path, REMEDY)
    # Runs may have collected the rows in different orders.
    return bank.select(np.argsort(bank.row_ids, kind="stable"))
