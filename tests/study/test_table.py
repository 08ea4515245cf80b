"""study.csv: every number of every cell, once, as a table that pandas reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from study_files import EXIT_LAYERS, NUM_TEST, SPEEDUPS, aggregate, make_study

from sweet_jax.study.measured_study import measure_study
from sweet_jax.study.outputs import write_study
from sweet_jax.study.table import COLUMNS, make_table

METHODS = ("sweet", "early_exit")
KEYS = list(COLUMNS[:-1])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, two methods, two seeds."""
    folder = tmp_path_factory.mktemp("study") / "s"
    return make_study(folder, METHODS, seeds=(0, 1), tasks=("rotten_tomatoes", "rte"))


@pytest.fixture(scope="module")
def table(study: Path) -> pd.DataFrame:
    write_study(study)
    return pd.read_csv(study / "study.csv")


def test_a_row_is_one_number_and_says_of_what(table: pd.DataFrame):
    assert list(table.columns) == list(COLUMNS)
    assert not table.duplicated(KEYS).any()
    assert set(table["study"]) == {"a study"}
    assert set(table["size"]) == {1000}
    cells = table.groupby(["task", "method", "seed"])
    assert len(cells) == 8
    exits, criteria, speedups = len(EXIT_LAYERS), 2, len(SPEEDUPS)
    assert set(cells.size()) == {exits * 7 + criteria * (1 + speedups * 4) + 6}
    of_exits = table[table["exit"].notna()]
    assert dict(zip(of_exits["exit"], of_exits["layer"], strict=True)) == dict(
        enumerate(EXIT_LAYERS)
    )
    at = table[table["speedup"].notna()]
    assert set(at["speedup"]) == set(SPEEDUPS)
    # Nothing reaches the last one.
    assert at[at["speedup"] == 100]["value"].isna().all()
    assert at[at["speedup"] < 100]["value"].notna().any()


def test_its_numbers_are_those_of_the_runs(study: Path, table: pd.DataFrame):
    for path in study.glob("cells/*/results.json"):
        results = json.loads(path.read_text())
        mine = table[
            (table["task"] == results["task"])
            & (table["method"] == results["method_label"])
            & (table["seed"] == results["seed"])
        ]

        def find(rows: pd.DataFrame = mine, **wanted: Any) -> float:
            for name, value in wanted.items():
                rows = rows[rows[name] == value]
            [value] = rows["value"]
            return value

        for row in results["exits"]:
            for name in ("score", "accuracy", "nll", "temperature", "cost_fraction"):
                assert find(exit=row["exit"], measure=name) == row[name]
        for criterion, points in results["at_speedup"].items():
            area = results["area"][criterion]
            assert find(criterion=criterion, measure="area") == area
            for point in points:
                for name, measure in (
                    ("score", "score_at_speedup"),
                    ("cost_fraction", "cost_at_speedup"),
                    ("threshold", "threshold_at_speedup"),
                ):
                    where = {"criterion": criterion, "speedup": point["target"]}
                    wanted = np.nan if point[name] is None else point[name]
                    found = find(**where, measure=measure)
                    np.testing.assert_equal(found, wanted)
        assert find(measure="majority") == results["majority"]
        assert find(measure="training_seconds") == results["seconds"]["train"]
        assert find(measure="peak_memory_bytes") == 1_500_000_000


def test_means_over_seeds_are_those_of_the_study(study: Path, table: pd.DataFrame):
    """What a person would do with the table gives the numbers of study.json."""
    scores = table[table["measure"] == "score"]
    means = scores.groupby(["task", "method", "exit"])["value"].mean()
    equal_cost = table[table["measure"] == "score_at_cost"]
    at_cost = equal_cost.groupby(["task", "method", "criterion", "speedup"])["value"]
    for setting in aggregate(study)["groups"][0]["settings"]:
        for method in setting["methods"]:
            place = (setting["task"], method["label"])
            for row in method["exits"]:
                found = means[(*place, row["exit"])]
                assert found == pytest.approx(row["score"]["mean"], abs=1e-6)
            for criterion, points in method["at_cost"].items():
                for point in points[:-1]:
                    found = at_cost.mean()[(*place, criterion, point["target"])]
                    assert found == pytest.approx(point["score"]["mean"], abs=1e-6)


def test_a_study_without_results_has_a_table_without_rows(tmp_path: Path):
    table = make_table(measure_study(make_study(tmp_path / "s", ())))
    assert list(table.columns) == list(COLUMNS)
    assert table.empty


def test_names_of_elsewhere_are_shown_harmlessly(tmp_path: Path):
    folder = make_study(tmp_path / "s", ("sweet(a=\x1b[31m)",), seeds=(0,))
    write_study(folder)
    assert "\x1b" not in (folder / "study.csv").read_text()
    table = pd.read_csv(folder / "study.csv")
    assert set(table["method"]) == {r"sweet(a=\x1b[31m)"}
    accuracy = table[table["measure"] == "accuracy"]["value"] * NUM_TEST
    np.testing.assert_allclose(accuracy, accuracy.round(), atol=1e-9)
