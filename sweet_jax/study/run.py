"""Runs the cells of a study's shard and keeps plan.json up to date."""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweet_jax.data.sources import load_task
from sweet_jax.evaluation.metrics import check_metric
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.settings.rules import SettingsError
from sweet_jax.study import cells
from sweet_jax.study.cell_lock import CellLocks
from sweet_jax.study.folder import PLAN, SCHEMA, CellEntry, read_plan
from sweet_jax.study.plan import (
    LEARNING_RATES,
    VARIED,
    Cell,
    Group,
    LearningRates,
    Plan,
)
from sweet_jax.system.checksums import write_sealed
from sweet_jax.system.files import list_differences, read_json, show

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 10.0


def run_study(plan: Plan, folder: Path) -> list[str]:
    """Runs the cells of the plan's shard that are not finished yet.

    Args:
        plan: plan of the study.
        folder: folder of the study.

    Returns:
        A line for every failed cell; failures do not stop the other cells.

    Raises:
        ValueError: an input of some cell is wrong, or the folder holds another study.
        Stopped: this process or that of a cell was asked to stop; the same call
            resumes.
    """
    check_inputs(plan)
    _check_folder(plan, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_plan(plan, folder)
    locks = CellLocks(folder / "locks")
    mine = plan.select_shard()
    before = {cell.name: _read_failure(cell, folder) for cell in mine}
    failures: dict[str, str] = {}
    seconds: list[float] = []
    waited_for: str | None = None
    for cell in mine:
        path = _find_folder(cell, folder)
        if locks.describe(cell.name) is None and cells.can_adopt(path):
            cells.adopt_cell(path)
    left = _list_left(mine, folder, failures)
    logger.info("%d of %d cells are left in %s", len(left), len(mine), folder)
    while left:
        cell = _pick(plan, left, folder, locks)
        if cell is None:
            if waited_for != (others := _describe_others(left, locks)):
                logger.info("waiting: %s", others)
                waited_for = others
            time.sleep(_WAIT_SECONDS)
        else:
            with locks.hold(cell.name) as held:
                if held and not cells.is_finished(_find_folder(cell, folder)):
                    _run_one(plan, cell, folder, seconds, len(left))
                    _write_plan(plan, folder)
        # Cells that failed here, or in another process since this one started.
        for cell in left:
            failure = _read_failure(cell, folder)
            if failure is not None and failure != before[cell.name]:
                failures[cell.name] = failure["error"]
        for cell in left:
            lost = [c for c in plan.find_search_cells(cell.group) if c.name in failures]
            if lost and cell.purpose != LEARNING_RATES:
                failures[cell.name] = f"no learning rates: {lost[0].name} failed"
        left = _list_left(left, folder, failures)
    return [f"{name}: {error}" for name, error in failures.items()]


def check_inputs(plan: Plan) -> None:
    """Raises ValueError if an encoder or a task of the plan is not available."""
    groups = {cell.group for cell in plan.cells}
    by_encoder = {group.encoder: group for group in groups}
    by_task = {group.task: group for group in groups}
    for group in by_encoder.values():
        find_encoder(group.make_settings(plan.base, 0, LearningRates()).encoder)
    for group in by_task.values():
        raw = load_task(group.make_settings(plan.base, 0, LearningRates()).data)
        check_metric(raw.task.metric, len(raw.label_names), raw.task.name)


def describe_plan(plan: Plan, folder: Path) -> str:
    """Returns the cells of the plan's shard with their status."""
    check_inputs(plan)
    lines = [f"study folder    {folder}"]
    for cell in plan.select_shard():
        path = _find_folder(cell, folder)
        is_done = cells.is_finished(path) or cells.can_adopt(path)
        lines.append(f"{'finished' if is_done else 'to do':<15} {cell.name}")
    return "\n".join(lines)


def find_choices(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Returns the tried and chosen learning rates of each group with a search."""
    choices = []
    for group in dict.fromkeys(cell.group for cell in plan.cells):
        candidates = plan.find_search_cells(group)
        done = [c for c in candidates if cells.is_finished(_find_folder(c, folder))]
        tried = [
            {
                **_describe_rates(c.learning_rates),
                "score": cells.score_selection(_find_folder(c, folder)),
            }
            for c in done
        ]
        if not tried:
            continue
        chosen = LearningRates()
        if len(done) == len(candidates):
            best = max(range(len(tried)), key=lambda i: tried[i]["score"])
            chosen = candidates[best].learning_rates or chosen
        choices.append(
            {
                **_describe_group(group),
                "tried": tried,
                "chosen": _describe_rates(chosen),
            }
        )
    return choices


def _describe_rates(rates: LearningRates | None) -> dict[str, float | None]:
    encoder, exits = rates or LearningRates()
    return {"encoder_learning_rate": encoder, "exit_learning_rate": exits}


def _find_folder(cell: Cell, folder: Path) -> Path:
    return folder / "cells" / cell.name


def _read_failure(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Returns the status of a failed cell, with its time; None for other cells."""
    path = _find_folder(cell, folder) / cells.STATUS
    status = cells.read_status(_find_folder(cell, folder))
    if status is None or status["status"] != cells.FAILED:
        return None
    return status | {"written": path.stat().st_mtime_ns}


def _list_left(
    mine: Sequence[Cell], folder: Path, failures: Mapping[str, str]
) -> list[Cell]:
    return [
        cell
        for cell in mine
        if cell.name not in failures
        and not cells.is_finished(_find_folder(cell, folder))
    ]


def _pick(
    plan: Plan, left: Sequence[Cell], folder: Path, locks: CellLocks
) -> Cell | None:
    """Returns the next cell that no process runs and whose learning rates are known."""
    for cell in left:
        known = all(
            cells.is_finished(_find_folder(c, folder))
            for c in plan.find_search_cells(cell.group)
        )
        if (known or cell.purpose == LEARNING_RATES) and locks.describe(
            cell.name
        ) is None:
            return cell
    return None


def _describe_others(left: Sequence[Cell], locks: CellLocks) -> str:
    holders = [(cell.name, locks.describe(cell.name)) for cell in left]
    return "; ".join(f"{name} is run by {who}" for name, who in holders if who)


def _run_one(
    plan: Plan, cell: Cell, folder: Path, seconds: list[float], num_left: int
) -> None:
    """Runs a cell; logs how it ended and the estimated time for the rest."""
    chosen = LearningRates()
    if cell.purpose != LEARNING_RATES:
        chosen = _find_chosen(find_choices(plan, folder), cell.group)
    logger.info("%s starts; %d to go", cell.name, num_left)
    status = cells.run_cell(
        plan.make_settings(cell, chosen),
        _find_folder(cell, folder),
        folder / "logs" / f"{cell.name}.log",
    )
    seconds.append(status["seconds"])
    if status["status"] == cells.FAILED:
        logger.warning("%s failed: %s", cell.name, show(status["error"]))
        return
    results = read_json(_find_folder(cell, folder) / "results.json")
    scores = " ".join(f"{row['score']:.3f}" for row in results["exits"])
    minutes = (num_left - 1) * sum(seconds) / len(seconds) / 60
    logger.info(
        "%s: exits %s, %.0f s; about %.0f min to go",
        cell.name,
        scores,
        status["seconds"],
        minutes,
    )


def _find_chosen(choices: Sequence[dict[str, Any]], group: Group) -> LearningRates:
    wanted = _describe_group(group)
    for choice in choices:
        if wanted.items() <= choice.items():
            return LearningRates(*choice["chosen"].values())
    return LearningRates()


def _describe_group(group: Group) -> dict[str, Any]:
    """Returns the names of a group for plan.json, without paths of folders."""
    return {
        "task": Path(group.task).name,
        "encoder": Path(group.encoder).name,
        "train_size": group.train_size,
        "method": group.method,
    }


def _check_folder(plan: Plan, folder: Path) -> None:
    """Raises SettingsError if the folder has other contents than this study."""
    path = folder / PLAN
    if not path.exists():
        # Cells without a plan are fine: they may come from several machines, or the
        # plan was damaged and deleted.
        strangers = [p.name for p in folder.glob("*")]
        if strangers and "cells" not in strangers:
            raise SettingsError(
                f"{folder} holds {strangers[0]} but no study: name another --workdir"
            )
        return
    stored = read_plan(folder)
    if differing := list_differences(stored.base, _flatten_base(plan)):
        raise SettingsError(
            f"{folder} holds a study with other settings: {'; '.join(differing)}. Name"
            " another --workdir, or use the same settings"
        )
    _check_search(plan, folder, stored.cells)


def _check_search(plan: Plan, folder: Path, entries: Sequence[CellEntry]) -> None:
    """Raises SettingsError if the folder has scores from another search."""
    for cell in plan.cells:
        path = _find_folder(cell, folder)
        if cell.purpose == LEARNING_RATES or not cells.is_finished(path):
            continue
        wanted = _describe_group(cell.group)
        planned = [
            e for e in entries if wanted.items() <= dataclasses.asdict(e).items()
        ]
        tried = {
            LearningRates(e.encoder_learning_rate, e.exit_learning_rate)
            for e in planned
            if e.purpose == LEARNING_RATES
        }
        now = {c.learning_rates for c in plan.find_search_cells(cell.group)}
        # The last plan may have had other methods, without entries for this one.
        if planned and tried != now:
            raise SettingsError(
                f"{folder} holds scores of {cell.group.method} from a search over other"
                " learning rates: use the same lists, or another"
                " --config.study.name"
            )


def _flatten_base(plan: Plan) -> dict[str, Any]:
    """Returns the flat settings that all cells share, as JSON values."""
    flat: dict[str, Any] = {}
    for name, value in plan.base.items():
        fields = value if isinstance(value, Mapping) else {"": value}
        for key, item in fields.items():
            flat[f"{name}.{key}" if key else name] = item
    common = {name: flat[name] for name in flat if name not in VARIED}
    return json.loads(json.dumps(common))


def _write_plan(plan: Plan, folder: Path) -> None:
    """Writes plan.json: the cells of every shard, and the choices so far."""
    write_sealed(
        folder / PLAN,
        {
            "schema": SCHEMA,
            "name": plan.study.name,
            "base": _flatten_base(plan),
            "cells": [
                {
                    "name": cell.name,
                    "purpose": cell.purpose,
                    **_describe_group(cell.group),
                    "seed": cell.seed,
                    **_describe_rates(cell.learning_rates),
                }
                for cell in plan.cells
            ],
            "choices": find_choices(plan, folder),
        },
    )
