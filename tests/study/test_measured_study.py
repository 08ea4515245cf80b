"""The measured cells of a study: grouped in the plan's order, each with its numbers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from study_files import (
    TASKS,
    change_results,
    make_entry,
    make_study,
    write_plan,
)

from sweet_jax.evaluation import metrics
from sweet_jax.evaluation.statistics import NUM_SLOW_DRAWS
from sweet_jax.study.folder import StudyError
from sweet_jax.study.measure import Setting, measure_cell
from sweet_jax.study.measured_study import MeasuredStudy, measure_study

METHODS = ("sweet", "early_exit")
DRAWS = 12


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory) -> Path:
    """Two sizes, two tasks, two methods, two seeds."""
    folder = tmp_path_factory.mktemp("study") / "s"
    return make_study(folder, METHODS, seeds=(1, 0), tasks=TASKS, sizes=(1000, 250))


@pytest.fixture(scope="module")
def measured(unchanged: Path) -> MeasuredStudy:
    return measure_study(unchanged, DRAWS)


@pytest.fixture
def folder(unchanged: Path, tmp_path: Path) -> Path:
    """The same to be changed."""
    return Path(shutil.copytree(unchanged, tmp_path / "s"))


def find_cell(folder: Path, *names: object) -> Path:
    return folder / "cells" / make_entry(*names)["name"]


def test_cells_are_grouped_in_the_order_of_the_plan(measured):
    assert list(measured.groups) == [("tiny", 1000), ("tiny", 250)]
    for (_, size), tasks in measured.groups.items():
        assert list(tasks) == list(TASKS)
        for task, cells in tasks.items():
            assert list(cells.cells) == list(METHODS)
            for method, by_seed in cells.cells.items():
                assert list(by_seed) == [1, 0]
                for seed, cell in by_seed.items():
                    entry = cell.entry
                    assert (entry.task, entry.train_size) == (task, size)
                    assert (entry.method, entry.seed) == (method, seed)
                assert cells.first_cell(method) is by_seed[1]
    assert measured.study.failed == {}


def test_every_cell_is_measured_by_the_setting_of_its_task(measured):
    assert measured.num_draws == DRAWS
    for tasks in measured.groups.values():
        for cells in tasks.values():
            assert len(cells.setting.draws.counts) == DRAWS
            first = Setting.from_cell(cells.first_cell("sweet"), DRAWS)
            np.testing.assert_array_equal(
                cells.setting.draws.counts, first.draws.counts
            )
            assert cells.samples.keys() == cells.cells.keys()
            for method, by_seed in cells.cells.items():
                assert cells.samples[method].keys() == by_seed.keys()
                for seed, cell in by_seed.items():
                    expected = measure_cell(cell, cells.setting).values["exits"]
                    found = cells.samples[method][seed].values["exits"]
                    np.testing.assert_array_equal(found, expected)


def test_a_cell_that_cannot_be_measured_fails_alone(folder):
    """The second of its task: the first decides what the others are compared by."""
    path = find_cell(folder, "rte", 250, "sweet", 0)
    change_results(path, exit_layers=[0, 1, 2, 3])
    study = measure_study(folder, DRAWS)
    assert list(study.study.failed) == [path.name]
    assert "its exit_layers (0, 1, 2, 3) are not those" in study.study.failed[path.name]
    cells = study.groups["tiny", 250]["rte"]
    assert list(cells.cells["sweet"]) == list(cells.samples["sweet"]) == [1]
    assert list(cells.cells["early_exit"]) == [1, 0]
    # Another size has the same task, and other cells.
    assert list(study.groups["tiny", 1000]["rte"].cells["sweet"]) == [1, 0]


def test_what_has_no_measured_cell_is_no_group(folder):
    """Neither a task whose cells all failed nor a size of such tasks."""
    for size, tasks in ((1000, ("rte",)), (250, TASKS)):
        for task in tasks:
            for method in METHODS:
                for seed in (0, 1):
                    path = find_cell(folder, task, size, method, seed)
                    change_results(path, metric="nothing")
    study = measure_study(folder, DRAWS)
    assert list(study.groups) == [("tiny", 1000)]
    assert list(study.groups["tiny", 1000]) == ["rotten_tomatoes"]
    assert len(study.study.failed) == 12


def test_the_next_cell_decides_where_the_first_cannot_be_measured(folder):
    change_results(find_cell(folder, "rte", 250, "sweet", 1), metric="nothing")
    study = measure_study(folder, DRAWS)
    assert list(study.study.failed) == [make_entry("rte", 250, "sweet", 1)["name"]]
    cells = study.groups["tiny", 250]["rte"]
    assert cells.setting.metric == "accuracy"
    assert list(cells.cells["sweet"]) == [0]


def test_a_study_of_no_cells_has_no_groups(tmp_path):
    write_plan(tmp_path, [make_entry("rte", 1000, "sweet", 0)])
    study = measure_study(tmp_path)
    assert study.groups == {}
    assert len(study.study.missing) == 1
    with pytest.raises(StudyError):
        measure_study(tmp_path / "nowhere")


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("asked", "expected"), [(NUM_SLOW_DRAWS + 7, NUM_SLOW_DRAWS), (DRAWS, DRAWS)]
)
def test_a_metric_that_is_called_for_each_draw_gets_fewer(tmp_path, asked, expected):
    """For all cells: averages are over draws that belong together."""
    metrics.register_metric("agreement", lambda y, found, _: (y == found).mean())
    entries = []
    for task, metric in zip(TASKS, ("accuracy", "agreement"), strict=True):
        make_study(tmp_path, ("sweet",), seeds=(0,), tasks=(task,), metric=metric)
        entries.append(make_entry(task, 1000, "sweet", 0))
    write_plan(tmp_path, entries)
    study = measure_study(tmp_path, asked)
    assert study.num_draws == expected
    for cells in study.groups["tiny", 1000].values():
        assert len(cells.setting.draws.counts) == expected
        assert len(cells.samples["sweet"][0].draws["exits"]) == expected
    write_plan(tmp_path, entries[:1])
    assert measure_study(tmp_path, asked).num_draws == asked
