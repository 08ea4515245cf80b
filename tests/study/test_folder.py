"""Folders of studies: what cannot be read is one line, or a failed cell."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from study_files import (
    aggregate,
    change_results,
    find,
    make_entry,
    write_plan,
    write_status,
)

from sweet_jax.study.folder import StudyError
from sweet_jax.system import checksums
from sweet_jax.system.checksums import write_sealed


def test_failed_and_missing_cells_are_listed_and_left_out(small: Path):
    cells = small / "cells"

    def path(method: str, seed: int) -> Path:
        return cells / make_entry("rotten_tomatoes", 1000, method, seed)["name"]

    plan = json.loads((small / "plan.json").read_text())
    never_run = make_entry("rotten_tomatoes", 1000, "sweet", 9)
    write_plan(small, [*plan["cells"], never_run])
    write_status(path("sweet", 0), "failed", "ValueError: the loss is\nnot finite")
    (path("early_exit", 2) / "results.json").unlink()
    record = aggregate(small, 30)
    assert record["failed"] == [
        {
            "name": path("sweet", 0).name,
            "error": "ValueError: the loss is not finite",
        }
    ]
    assert record["missing"] == [path("early_exit", 2).name, never_run["name"]]
    assert record["num_planned"] == 7
    [setting] = record["groups"][0]["settings"]
    assert find(setting["methods"], label="sweet")["seeds"] == [1, 2]
    assert find(setting["methods"], label="early_exit")["seeds"] == [0, 1]
    [pair] = setting["differences"]
    assert pair["seeds"] == [1]
    assert pair["mean_exit"]["over_seeds"] is None


def change_targets(path: Path) -> None:
    """Gives a cell other speed-ups than the rest of its study."""
    results = json.loads((path / "results.json").read_text())
    points = {c: rows[1:] for c, rows in results["at_speedup"].items()}
    change_results(path, at_speedup=points)


def swap_banks(path: Path) -> None:
    """Gives a cell the bank of another seed."""
    other = path.with_name(path.name.replace("-s1-", "-s2-"))
    shutil.copy(other / "logits_test.npz", path / "logits_test.npz")
    checksums.record(path, "logits_test.npz")


def change_one_byte(path: Path) -> None:
    """Changes one byte of a bank, nowhere near its numbers."""
    data = (path / "logits_test.npz").read_bytes()
    (path / "logits_test.npz").write_bytes(data.replace(b"digest", b"digesT"))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda p: (p / "results.json").write_text("{"), "results.json was altered"),
        (lambda p: (p / "cell.json").write_text("[]"), "cell.json .*: delete it and"),
        (lambda p: (p / "logits_test.npz").write_bytes(b"PK"), "npz was altered"),
        (change_one_byte, "npz was altered .*: delete cell.json beside it and repeat"),
        (lambda p: (p / "logits_test.npz").unlink(), "npz is missing"),
        (lambda p: (p / "checksums.json").unlink(), "checksums.json is missing"),
        (lambda p: change_results(p, seed=5), "of sweet with seed 5, but the plan has"),
        (lambda p: change_results(p, schema=2), "has schema 2, this version reads"),
        (lambda p: change_results(p, metric="f1"), "its metric f1 are not those"),
        (lambda p: change_results(p, exits="many"), r"is damaged .exits: Input should"),
        (lambda p: change_results(p, seconds=5), r"is damaged .seconds: Input should"),
        (lambda p: change_results(p, area={}), r"curves, at_speedup and area have"),
        (lambda p: change_results(p, training_flops="x"), r"damaged .training_flops"),
        (change_targets, r"its targets .2.0, .* are not those of the setting's first"),
        (swap_banks, "its results.json .*: they belong to different runs"),
    ],
)
def test_a_cell_that_cannot_be_read_is_a_failed_cell(small: Path, damage, error: str):
    path = small / "cells" / make_entry("rotten_tomatoes", 1000, "sweet", 1)["name"]
    damage(path)
    record = aggregate(small, 30)
    [failed] = record["failed"]
    assert failed["name"] == path.name
    assert "\n" not in failed["error"]
    with pytest.raises(ValueError, match=error):
        raise ValueError(failed["error"])
    [setting] = record["groups"][0]["settings"]
    assert find(setting["methods"], label="sweet")["seeds"] == [0, 2]


def plan_of(**changes: Any) -> dict[str, Any]:
    return {
        **{"schema": 1, "name": "x", "base": {}, "cells": [], "choices": []},
        **changes,
    }


def entry_of(**changes: Any) -> dict[str, Any]:
    return make_entry("rte", 1000, "sweet", 1) | changes


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "is not a study, since it has no plan.json"),
        ({"schema": 2}, "has schema 2, this version reads up to 1: update"),
        ({"schema": 1, "name": "x", "base": {}}, r"damaged .cells: Field required"),
        (plan_of(cells=[{"name": "a"}]), r"damaged .cells.0.purpose: Field required"),
        (plan_of(cells=[entry_of(name="../../elsewhere")]), r"damaged .cells.0.name"),
        (plan_of(cells=[entry_of(name="..")]), r"damaged .cells.0.name"),
        (plan_of(cells=[entry_of(name="")]), r"damaged .cells.0.name"),
        (plan_of(cells=[entry_of(name="a\0b")]), r"damaged .cells.0.name"),
        (plan_of(cells=[entry_of(seed="1")]), r"damaged .cells.0.seed"),
        (plan_of(choices=[{"task": "a"}]), r"damaged .choices.0.encoder: Field req"),
        (plan_of(name="half \ud800"), r"damaged .Invalid JSON"),
    ],
)
def test_a_plan_that_cannot_be_read_stops(tmp_path: Path, content, error: str):
    if content is not None:
        write_sealed(tmp_path / "plan.json", content)
    with pytest.raises(StudyError, match=error):
        aggregate(tmp_path)


def test_a_plan_that_changed_is_not_read(small: Path):
    text = (small / "plan.json").read_text()
    for damaged in ("", "{}", text[:200], text.replace('"seed": 1', '"seed": 3', 1)):
        (small / "plan.json").write_text(damaged)
        with pytest.raises(StudyError, match=r"plan.json .*: delete it and repeat"):
            aggregate(small)


def test_bad_folders_and_plans_with_two_cells_for_one_stop(tmp_path: Path):
    with pytest.raises(StudyError, match="does not exist"):
        aggregate(tmp_path / "none")
    entry = make_entry("rte", 1000, "sweet", 0)
    write_plan(tmp_path, [entry, {**entry, "name": "twin"}])
    with pytest.raises(StudyError, match="and twin have the same task"):
        aggregate(tmp_path)
