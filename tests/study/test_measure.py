"""What a cell says: by its own run's calibration, on rows drawn once per task."""

import json
from pathlib import Path

import numpy as np
import pytest
from study_files import (
    TASKS,
    aggregate,
    change_results,
    find,
    make_entry,
    make_study,
)

from sweet_jax.study.folder import read_study
from sweet_jax.study.measure import Setting, make_cost_grid
from sweet_jax.system import checksums


def test_exits_that_learn_to_exit_are_scaled_as_in_their_run(tmp_path: Path):
    folder = make_study(
        tmp_path / "s", ("sweet", "early_exit"), criteria=("lte", "confidence")
    )
    record = aggregate(folder, 30)
    assert record["failed"] == []
    [setting] = record["groups"][0]["settings"]
    curve = find(setting["methods"], label="sweet")["curves"]["lte"]
    assert len(curve["mean"]) == 61
    [pair] = setting["differences"]
    assert pair["area"]["lte"]["over_seeds_and_rows"] is not None
    # Without its range no score of an exit can be compared: a failed cell, no crash.
    name = make_entry("rotten_tomatoes", 1000, "sweet", 1)["name"]
    path = folder / "cells" / name
    results = json.loads((path / "results.json").read_text())
    for row in results["exits"]:
        del row["lte_range"]
    change_results(path, exits=results["exits"])
    [failed] = aggregate(folder, 30)["failed"]
    assert failed["name"] == name
    assert "learning-to-exit scores" in failed["error"]


def test_cost_grids_share_their_steps():
    sweet, multi = (np.array(costs) / 6 for costs in ([1, 2, 4, 6], [1, 3, 7, 13]))
    ours, theirs = make_cost_grid(sweet), make_cost_grid(multi)
    assert len(ours) == 61
    assert theirs[:61] == pytest.approx(ours, abs=1e-12)
    assert theirs[-1] == 13 / 6
    assert make_cost_grid(np.array([1.0])).tolist() == [1.0]


def test_rows_are_drawn_anew_for_every_task_and_kept_over_sizes(tmp_path: Path):
    folder = make_study(
        tmp_path / "study", ("sweet",), seeds=(0,), tasks=TASKS, sizes=(250, 1000)
    )
    draws = {
        (c.entry.task, c.entry.train_size): Setting.from_cell(c, 20).draws.counts
        for c in read_study(folder).finished
    }
    assert (draws["rte", 250] == draws["rte", 1000]).all()
    assert (draws["rte", 250] != draws["rotten_tomatoes", 250]).any()
    record = aggregate(folder, 20)
    assert [group["train_size"] for group in record["groups"]] == [250, 1000]


def test_cells_of_other_test_rows_are_not_compared(tmp_path: Path):
    small = make_study(tmp_path / "study", ("sweet", "early_exit"))
    path = small / "cells" / make_entry("rotten_tomatoes", 1000, "sweet", 1)["name"]
    with np.load(path / "logits_test.npz") as arrays:
        changed = {**arrays, "row_ids": arrays["row_ids"] + 1}
    np.savez(path / "logits_test.npz", **changed)
    checksums.record(path, "logits_test.npz")
    [failed] = aggregate(small, 30)["failed"]
    assert "test rows are not those" in failed["error"]
