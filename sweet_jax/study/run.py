"""Running a study: every cell of this shard, then what all finished cells say."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from sweet_jax.data.sources import load_task
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.runs.workdir import list_differences
from sweet_jax.settings.fields import SettingsError
from sweet_jax.study import cells
from sweet_jax.study.cell_lock import Claims
from sweet_jax.study.folder import PLAN, PLAN_REMEDY
from sweet_jax.study.plan import RATES, VARIED, Cell, Group, Plan, Rates
from sweet_jax.system.checksums import read_sealed, write_sealed
from sweet_jax.system.files import read_json, show

SCHEMA = 1
_WAIT_SECONDS = 10.0


def run_study(plan: Plan, folder: Path) -> list[str]:
    """Runs the cells of the plan's shard that are not finished yet.

    Args:
        plan: of the study.
        folder: where the study lives.

    Returns:
        A line for every cell that failed; they do not stop the others.

    Raises:
        ValueError: an input of some cell is wrong, or the folder holds another study.
        Stopped: this process or that of a cell was asked to; the same call goes on.
    """
    check_inputs(plan)
    _check_folder(plan, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_plan(plan, folder)
    claims = Claims(folder / "claims")
    mine = plan.select_shard()
    before = {cell.name: _read_failure(cell, folder) for cell in mine}
    failures: dict[str, str] = {}
    seconds: list[float] = []
    waited_for: str | None = None
    for cell in mine:
        path = _find_folder(cell, folder)
        if claims.describe(cell.name) is None and cells.can_adopt(path):
            cells.adopt_cell(path)
    left = _list_left(mine, folder, failures)
    logging.info("%d of %d cells are left in %s", len(left), len(mine), folder)
    while left:
        cell = _pick(plan, left, folder, claims)
        if cell is None:
            if waited_for != (others := _describe_others(left, claims)):
                logging.info("waiting: %s", others)
                waited_for = others
            time.sleep(_WAIT_SECONDS)
        else:
            with claims.claim(cell.name) as claimed:
                if claimed and not cells.is_finished(_find_folder(cell, folder)):
                    _run_one(plan, cell, folder, seconds, len(left))
                    _write_plan(plan, folder)
        # Failed here, or in another process since this one started.
        for cell in left:
            failure = _read_failure(cell, folder)
            if failure is not None and failure != before[cell.name]:
                failures[cell.name] = failure["error"]
        for cell in left:
            lost = [c for c in plan.find_rate_cells(cell.group) if c.name in failures]
            if lost and cell.purpose != RATES:
                failures[cell.name] = f"no learning rates: {lost[0].name} failed"
        left = _list_left(left, folder, failures)
    return [f"{name}: {error}" for name, error in failures.items()]


def check_inputs(plan: Plan) -> None:
    """Raises ValueError where an encoder or a task of the plan cannot be had."""
    groups = {cell.group for cell in plan.cells}
    by_encoder = {group.encoder: group for group in groups}
    by_task = {group.task: group for group in groups}
    for group in by_encoder.values():
        find_encoder(group.make_settings(plan.base, 0, Rates()).encoder)
    for group in by_task.values():
        load_task(group.make_settings(plan.base, 0, Rates()).data)


def describe_plan(plan: Plan, folder: Path) -> str:
    """Returns the cells of the plan's shard and how far they are."""
    check_inputs(plan)
    lines = [f"study folder    {folder}"]
    for cell in plan.select_shard():
        path = _find_folder(cell, folder)
        is_done = cells.is_finished(path) or cells.can_adopt(path)
        lines.append(f"{'finished' if is_done else 'to do':<15} {cell.name}")
    return "\n".join(lines)


def find_choices(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Returns, per group with rates to choose from, what was tried and chosen."""
    choices = []
    for group in dict.fromkeys(cell.group for cell in plan.cells):
        candidates = plan.find_rate_cells(group)
        done = [c for c in candidates if cells.is_finished(_find_folder(c, folder))]
        tried = [
            {
                **_describe_rates(c.rates),
                "score": cells.score_selection(_find_folder(c, folder)),
            }
            for c in done
        ]
        if not tried:
            continue
        chosen = Rates()
        if len(done) == len(candidates):
            best = max(range(len(tried)), key=lambda i: tried[i]["score"])
            chosen = candidates[best].rates or chosen
        choices.append(
            {
                **_describe_group(group),
                "tried": tried,
                "chosen": chosen.encoder,
                "chosen_exit": chosen.exits,
            }
        )
    return choices


def _describe_rates(rates: Rates | None) -> dict[str, float | None]:
    encoder, exits = rates or Rates()
    return {"rate": encoder, "exit_rate": exits}


def _find_folder(cell: Cell, folder: Path) -> Path:
    return folder / "cells" / cell.name


def _read_failure(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Returns the status of a cell that failed, with its time; None for any other."""
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
    plan: Plan, left: Sequence[Cell], folder: Path, claims: Claims
) -> Cell | None:
    """Returns the next cell that nobody works on and whose rates are known."""
    for cell in left:
        known = all(
            cells.is_finished(_find_folder(c, folder))
            for c in plan.find_rate_cells(cell.group)
        )
        if (known or cell.purpose == RATES) and claims.describe(cell.name) is None:
            return cell
    return None


def _describe_others(left: Sequence[Cell], claims: Claims) -> str:
    claimed = [(cell.name, claims.describe(cell.name)) for cell in left]
    return "; ".join(f"{name} is run by {who}" for name, who in claimed if who)


def _run_one(
    plan: Plan, cell: Cell, folder: Path, seconds: list[float], num_left: int
) -> None:
    """Runs a cell, says how it ended and about how long the rest will take."""
    chosen = Rates()
    if cell.purpose != RATES:
        chosen = _find_chosen(find_choices(plan, folder), cell.group)
    logging.info("%s starts; %d to go", cell.name, num_left)
    status = cells.run_cell(
        plan.make_settings(cell, chosen),
        _find_folder(cell, folder),
        folder / "logs" / f"{cell.name}.log",
    )
    seconds.append(status["seconds"])
    if status["status"] == cells.FAILED:
        logging.warning("%s failed: %s", cell.name, show(status["error"]))
        return
    results = read_json(_find_folder(cell, folder) / "results.json")
    scores = " ".join(f"{row['score']:.3f}" for row in results["exits"])
    minutes = (num_left - 1) * sum(seconds) / len(seconds) / 60
    logging.info(
        "%s: exits %s, %.0f s; about %.0f min to go",
        cell.name,
        scores,
        status["seconds"],
        minutes,
    )


def _find_chosen(choices: Sequence[dict[str, Any]], group: Group) -> Rates:
    wanted = _describe_group(group)
    for choice in choices:
        if wanted.items() <= choice.items():
            return Rates(choice["chosen"], choice["chosen_exit"])
    return Rates()


def _describe_group(group: Group) -> dict[str, Any]:
    """Returns a group as plan.json names it: by names, wherever its folders are."""
    return {
        "task": Path(group.task).name,
        "encoder": Path(group.encoder).name,
        "train_size": group.train_size,
        "method": group.method,
    }


def _check_folder(plan: Plan, folder: Path) -> None:
    """Raises SettingsError where the folder holds something else than this study."""
    path = folder / PLAN
    if not path.exists():
        # Cells copied together from several machines, or a plan that was damaged.
        strangers = [p.name for p in folder.glob("*")]
        if strangers and "cells" not in strangers:
            raise SettingsError(
                f"{folder} holds {strangers[0]} and no study: name another --workdir"
            )
        return
    stored = read_sealed(path, PLAN_REMEDY)
    before, now = stored["base"], _flatten_base(plan)
    if differing := list_differences(before, now):
        raise SettingsError(
            f"{folder} holds a study of other settings: {'; '.join(differing)}. Name"
            " another --workdir, or use the same settings"
        )
    _check_rates(plan, folder, stored["cells"])


def _check_rates(plan: Plan, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Raises SettingsError where scores are there of a choice among other rates."""
    for cell in plan.cells:
        if cell.purpose == RATES or not cells.is_finished(_find_folder(cell, folder)):
            continue
        wanted = _describe_group(cell.group)
        planned = [row for row in rows if wanted.items() <= row.items()]
        # Plans from before exit rates could be chosen do not name them.
        tried = {
            Rates(row["rate"], row.get("exit_rate"))
            for row in planned
            if row["purpose"] == RATES
        }
        # The last plan may have been of other methods, and says nothing of this one.
        if planned and tried != {c.rates for c in plan.find_rate_cells(cell.group)}:
            raise SettingsError(
                f"{folder} holds scores of {cell.group.method} with other learning"
                " rates to choose from: use the same lists, or another"
                " --config.study.name"
            )


def _flatten_base(plan: Plan) -> dict[str, Any]:
    """Returns what all cells have in common, flat, as JSON reads it back."""
    flat: dict[str, Any] = {}
    for name, value in plan.base.items():
        fields = value if isinstance(value, Mapping) else {"": value}
        for key, item in fields.items():
            flat[f"{name}.{key}" if key else name] = item
    common = {name: flat[name] for name in flat if name not in VARIED}
    return json.loads(json.dumps(common))


def _write_plan(plan: Plan, folder: Path) -> None:
    """Writes plan.json: all cells, of every shard, and the rates chosen so far."""
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
                    **_describe_rates(cell.rates),
                }
                for cell in plan.cells
            ],
            "choices": find_choices(plan, folder),
        },
    )
