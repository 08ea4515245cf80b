"""study.json: equal to slow loops over the files, honest about what is absent."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from study_files import (
    EXIT_LAYERS,
    SPEEDUPS,
    make_entry,
    make_study,
    set_right_rows,
    write_cell,
    write_plan,
    write_status,
)

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation import metrics
from sweet_jax.evaluation.statistics import two_level_interval
from sweet_jax.study.aggregate import aggregate_study
from sweet_jax.study.findings import MARGIN, decide
from sweet_jax.study.folder import StudyError, read_study
from sweet_jax.study.measure import Setting, make_cost_grid
from sweet_jax.system import checksums
from sweet_jax.system.checksums import write_sealed

TASKS = ("rotten_tomatoes", "rte")
METHODS = ("sweet", "early_exit", "multi_model", "sweet(a=0.2)")
NUM_DRAWS = 40


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Two tasks, four methods, three seeds."""
    return make_study(tmp_path_factory.mktemp("study"), METHODS, tasks=TASKS)


@pytest.fixture(scope="module")
def record(study: Path) -> dict[str, Any]:
    """What it aggregates to."""
    return aggregate_study(study, NUM_DRAWS)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory) -> Path:
    """A study of one task: two methods, three seeds; tests copy it."""
    folder = tmp_path_factory.mktemp("unchanged") / "study"
    return make_study(folder, ("sweet", "early_exit"))


@pytest.fixture
def small(unchanged: Path, tmp_path: Path) -> Path:
    """The same to be changed."""
    return Path(shutil.copytree(unchanged, tmp_path / "study"))


def find(rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Returns the only row with these fields."""
    [row] = [r for r in rows if all(r[name] == x for name, x in fields.items())]
    return row


def read_rows(study: Path, task: str, method: str, seed: int):
    """Returns labels [N] and answers [N, E] of a cell by row id, from its file."""
    name = make_entry(task, 1000, method, seed)["name"]
    with np.load(study / "cells" / name / "logits_test.npz") as arrays:
        order = np.argsort(arrays["row_ids"])
        return arrays["labels"][order], arrays["logits"][order].argmax(2)


def score_rows(labels, answers, rows) -> float:
    """Returns accuracy, one row after the other."""
    return sum(int(labels[n] == answers[n]) for n in rows) / len(rows)


def test_scores_equal_a_slow_loop(study: Path, record: dict[str, Any]):
    [group] = record["groups"]
    assert (group["encoder"], group["train_size"]) == ("tiny", 1000)
    per_task = []
    for task in TASKS:
        setting = find(group["settings"], task=task)
        assert setting["exit_layers"] == list(EXIT_LAYERS)
        scores = {}
        for method, seed, i in itertools.product(METHODS, range(3), range(4)):
            labels, answers = read_rows(study, task, method, seed)
            rows = range(len(labels))
            scores[method, seed, i] = score_rows(labels, answers[:, i], rows)
        per_task.append(scores)
        check_scores(setting, scores)
    # The average over tasks is a mean per seed first.
    mean = {key: (per_task[0][key] + per_task[1][key]) / 2 for key in per_task[0]}
    assert group["average"]["tasks"] == list(TASKS)
    check_scores(group["average"], mean)


def check_scores(view: dict[str, Any], scores: dict[tuple[str, int, int], float]):
    """Compares methods and differences with scores by (method, seed, exit)."""
    for method in METHODS:
        found = find(view["methods"], label=method)
        assert found["seeds"] == [0, 1, 2]
        for i, row in enumerate(found["exits"]):
            values = [scores[method, seed, i] for seed in range(3)]
            check_mean(row["score"], row["score"]["interval"], values)
        means = [
            sum(scores[method, seed, i] for i in range(4)) / 4 for seed in range(3)
        ]
        check_mean(found["mean_exit"], found["mean_exit"]["interval"], means)
    pairs = {(pair["of"], pair["minus"]) for pair in view["differences"]}
    assert pairs == {
        ("multi_model", "early_exit"),
        ("sweet", "early_exit"),
        ("sweet", "multi_model"),
        ("sweet(a=0.2)", "early_exit"),
        ("sweet(a=0.2)", "sweet"),
    }
    for pair in view["differences"]:
        ours, theirs = pair["of"], pair["minus"]
        for i, row in enumerate(pair["exits"]):
            values = [scores[ours, s, i] - scores[theirs, s, i] for s in range(3)]
            check_mean(row, row["over_seeds"], values)


def check_mean(described: dict[str, Any], interval: list[float], values: list[float]):
    """Compares a mean, its interval and its values."""
    assert described["values"] == pytest.approx(values, abs=1e-6)
    assert described["mean"] == pytest.approx(sum(values) / 3, abs=1e-6)
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    expected = [np.mean(values) - half, np.mean(values) + half]
    assert interval == pytest.approx(expected, abs=2e-6)


def test_bootstrap_equals_a_slow_loop(study: Path, record: dict[str, Any]):
    cells = {cell.entry.task: cell for cell in read_study(study).finished}
    drawn = {}
    for task in TASKS:
        # The same rows for both methods, all seeds and exits.
        counts = Setting.from_cell(cells[task], NUM_DRAWS).draws.counts
        for draw, seed, i in itertools.product(range(NUM_DRAWS), range(3), range(4)):
            rows = [n for n, count in enumerate(counts[draw]) for _ in range(count)]
            scores = []
            for method in ("sweet", "early_exit"):
                labels, answers = read_rows(study, task, method, seed)
                scores.append(
                    metrics.score_predictions(
                        "accuracy", labels[rows], answers[rows, i]
                    )
                )
            drawn[task, draw, seed, i] = scores[0] - scores[1]

    def check(view: dict[str, Any], tasks: tuple[str, ...]) -> None:
        pair = find(view["differences"], of="sweet", minus="early_exit")
        whole = np.array(
            [
                [
                    [np.mean([drawn[t, b, s, i] for t in tasks]) for i in range(4)]
                    for s in range(3)
                ]
                for b in range(NUM_DRAWS)
            ]
        )
        rows = [*pair["exits"], pair["mean_exit"]]
        for row, draws_BS in zip(
            rows, [*np.moveaxis(whole, 2, 0), whole.mean(axis=2)], strict=True
        ):
            interval = two_level_interval(np.array(row["values"]), draws_BS)
            assert row["over_seeds_and_rows"] == pytest.approx(interval, abs=3e-6)
            assert row["over_seeds_and_rows"][0] <= row["over_seeds"][0]

    [group] = record["groups"]
    for task in TASKS:
        check(find(group["settings"], task=task), (task,))
    check(group["average"], TASKS)


def test_cascades_are_those_of_the_results(study: Path, record: dict[str, Any]):
    setting = find(record["groups"][0]["settings"], task="rte")
    for method in METHODS:
        found = find(setting["methods"], label=method)
        paths = [make_entry("rte", 1000, method, seed)["name"] for seed in range(3)]
        texts = [(study / "cells" / p / "results.json").read_text() for p in paths]
        results = [json.loads(text) for text in texts]
        for criterion in ("confidence", "patience"):
            areas = [r["area"][criterion] for r in results]
            assert found["area"][criterion]["values"] == pytest.approx(areas, abs=1e-6)
            points = found["at_speedup"][criterion]
            assert [point["target"] for point in points] == list(SPEEDUPS)
            assert points[-1]["score"] is None  # no seed is 100 times as fast
            scores = [r["at_speedup"][criterion][1]["score"] for r in results]
            assert points[1]["score"]["values"] == pytest.approx(scores, abs=1e-6)
            curve = found["curves"][criterion]
            ends = [found["exits"][i]["score"]["mean"] for i in (0, -1)]
            assert curve["mean"][:: len(curve["mean"]) - 1] == pytest.approx(ends)
            assert curve["cost"][-1] == pytest.approx(
                13 / 6 if method == "multi_model" else 1
            )
    pair = find(setting["differences"], of="sweet", minus="multi_model")
    # Only the first criterion's cascades are drawn.
    assert pair["area"]["confidence"]["over_seeds_and_rows"] is not None
    assert pair["area"]["patience"]["over_seeds_and_rows"] is None
    assert pair["at_speedup"]["confidence"][-1]["score"] is None


def read_by_thresholds(study: Path, name: str, layers: list[int], cost: float) -> float:
    """Returns the accuracy of a cascade by confidence at a cost, by a slow loop."""
    results = json.loads((study / "cells" / name / "results.json").read_text())
    temperatures = [row["temperature"] for row in results["exits"]]
    with np.load(study / "cells" / name / "logits_test.npz") as arrays:
        labels, logits_NEC = arrays["labels"], arrays["logits"]
    scaled = logits_NEC / np.array(temperatures, np.float32)[None, :, None]
    powers = np.exp(scaled - scaled.max(axis=2, keepdims=True))
    sure_NE = (powers / powers.sum(axis=2, keepdims=True)).max(axis=2)
    points = []
    for threshold in [*np.unique(sure_NE[:, :-1]), 2.0]:
        leaves = [[*np.flatnonzero(row[:-1] >= threshold), 3][0] for row in sure_NE]
        answers = [logits_NEC[n, i].argmax() for n, i in enumerate(leaves)]
        right = sum(int(a == label) for a, label in zip(answers, labels, strict=True))
        paid = sum(layers[i] for i in leaves) / 6
        points.append((paid / len(labels), right / len(labels)))
    [below, *_] = [p for p in reversed(points) if p[0] <= cost]
    [above, *_] = [p for p in points if p[0] >= cost]
    if below[0] == above[0]:
        return above[1]
    share = (cost - below[0]) / (above[0] - below[0])
    return below[1] + share * (above[1] - below[1])


def test_cascades_are_compared_at_equal_cost(study: Path, record: dict[str, Any]):
    setting = find(record["groups"][0]["settings"], task="rte")
    layers = {"sweet": [1, 2, 4, 6], "multi_model": [1, 3, 7, 13]}
    scores = {
        (method, seed, target): read_by_thresholds(
            study, make_entry("rte", 1000, method, seed)["name"], paid, 1 / target
        )
        for method, paid in layers.items()
        for seed, target in itertools.product(range(3), SPEEDUPS[:-1])
    }
    for method in layers:
        points = find(setting["methods"], label=method)["at_cost"]["confidence"]
        assert [point["target"] for point in points] == list(SPEEDUPS)
        assert points[-1]["score"] is None  # exit 0 costs more than a hundredth
        for point in points[:-1]:
            values = [scores[method, seed, point["target"]] for seed in range(3)]
            assert point["score"]["values"] == pytest.approx(values, abs=1e-6)
    pair = find(setting["differences"], of="sweet", minus="multi_model")
    *reached, last = pair["at_cost"]["confidence"]
    assert last["score"] is None
    for point in reached:
        (low, high), alone = (
            point["score"][name] for name in ("over_seeds_and_rows", "over_seeds")
        )
        assert low <= alone[0] < alone[1] <= high
    claim = find(setting["findings"], claim="sweet_fast")["comparisons"][1]
    parts = np.mean([point["score"]["values"] for point in reached[-2:]], axis=0)
    assert claim["values"] == pytest.approx(list(parts), abs=2e-6)


def test_exits_that_learn_to_exit_are_scaled_as_in_their_run(tmp_path: Path):
    folder = make_study(
        tmp_path / "s", ("sweet", "early_exit"), criteria=("lte", "confidence")
    )
    record = aggregate_study(folder, 30)
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
    [failed] = aggregate_study(folder, 30)["failed"]
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
    record = aggregate_study(folder, 20)
    assert [group["train_size"] for group in record["groups"]] == [250, 1000]


_READ = (
    "plan.json",
    "cell.json",
    "results.json",
    "logits_test.npz",
    "checksums.json",
)


def test_a_copy_of_the_small_files_gives_the_same(small: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    for path in small.rglob("*"):
        if path.name in _READ:
            (copy / path.relative_to(small)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / path.relative_to(small))
    assert aggregate_study(copy, 30) == aggregate_study(small, 30)


def test_failed_and_missing_cells_are_listed_and_left_out(small: Path):
    cells = small / "cells"

    def path(method: str, seed: int) -> Path:
        return cells / make_entry("rotten_tomatoes", 1000, method, seed)["name"]

    plan = json.loads((small / "plan.json").read_text())
    never_run = make_entry("rotten_tomatoes", 1000, "sweet", 9)
    write_plan(small, [*plan["cells"], never_run])
    write_status(path("sweet", 0), "failed", "ValueError: the loss is\nnot finite")
    (path("early_exit", 2) / "results.json").unlink()
    record = aggregate_study(small, 30)
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


def change_results(path: Path, **changes: Any) -> None:
    """Changes fields of a cell's results.json."""
    results = json.loads((path / "results.json").read_text())
    (path / "results.json").write_text(json.dumps({**results, **changes}))
    checksums.record(path, "results.json")


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
        (lambda p: change_results(p, seed=5), "of sweet with seed 5, planned was"),
        (lambda p: change_results(p, schema=2), "has schema 2, this version reads"),
        (lambda p: change_results(p, metric="f1"), "its metric f1 are not those"),
        (swap_banks, "its results.json .*: they are not of the same run"),
    ],
)
def test_a_cell_that_cannot_be_read_is_a_failed_cell(small: Path, damage, error: str):
    path = small / "cells" / make_entry("rotten_tomatoes", 1000, "sweet", 1)["name"]
    damage(path)
    record = aggregate_study(small, 30)
    [failed] = record["failed"]
    assert failed["name"] == path.name
    assert "\n" not in failed["error"]
    with pytest.raises(ValueError, match=error):
        raise ValueError(failed["error"])
    [setting] = record["groups"][0]["settings"]
    assert find(setting["methods"], label="sweet")["seeds"] == [0, 2]


def test_cells_of_other_test_rows_are_not_compared(small: Path):
    path = small / "cells" / make_entry("rotten_tomatoes", 1000, "sweet", 1)["name"]
    with np.load(path / "logits_test.npz") as arrays:
        changed = {**arrays, "row_ids": arrays["row_ids"] + 1}
    np.savez(path / "logits_test.npz", **changed)
    checksums.record(path, "logits_test.npz")
    [failed] = aggregate_study(small, 30)["failed"]
    assert "test rows are not those" in failed["error"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "is not a study .no plan.json in it."),
        ({"schema": 2}, "has schema 2, this version reads 1: update"),
        ({"schema": 1, "name": "x"}, "plan.json lacks cells, choices"),
        (
            {"schema": 1, "name": "x", "cells": [{"name": "a"}], "choices": []},
            "a cell lacks purpose, task, encoder, train_size, method, seed",
        ),
    ],
)
def test_a_plan_that_cannot_be_read_stops(tmp_path: Path, content, error: str):
    if content is not None:
        write_sealed(tmp_path / "plan.json", content)
    with pytest.raises(StudyError, match=error):
        aggregate_study(tmp_path)


def test_a_plan_that_changed_is_not_read(small: Path):
    text = (small / "plan.json").read_text()
    for damaged in ("", "{}", text[:200], text.replace('"seed": 1', '"seed": 3', 1)):
        (small / "plan.json").write_text(damaged)
        with pytest.raises(StudyError, match=r"plan.json .*: delete it and repeat"):
            aggregate_study(small)


def test_bad_folders_and_plans_with_two_cells_for_one_stop(tmp_path: Path):
    with pytest.raises(StudyError, match="does not exist"):
        aggregate_study(tmp_path / "none")
    entry = make_entry("rte", 1000, "sweet", 0)
    write_plan(tmp_path, [entry, {**entry, "name": "twin"}])
    with pytest.raises(StudyError, match="and twin have the same task"):
        aggregate_study(tmp_path)


def test_a_study_without_a_finished_cell_aggregates(tmp_path: Path):
    write_plan(tmp_path, [make_entry("rte", 1000, "sweet", 0)])
    record = aggregate_study(tmp_path)
    assert record["groups"] == []
    assert len(record["missing"]) == 1


def test_searches_of_rates_enter_no_average(small: Path):
    plan = json.loads((small / "plan.json").read_text())
    search = make_entry("rotten_tomatoes", 1000, "sweet", 100, purpose="rates")
    write_cell(small, search)
    failed = make_entry("rotten_tomatoes", 1000, "sweet", 101, purpose="rates")
    write_status(small / "cells" / failed["name"], "failed", "no space")
    choice = {"task": "rotten_tomatoes", "chosen": 1e-4}
    write_plan(small, [*plan["cells"], search, failed], [choice])
    record = aggregate_study(small, 30)
    [setting] = record["groups"][0]["settings"]
    assert find(setting["methods"], label="sweet")["seeds"] == [0, 1, 2]
    assert record["choices"] == [choice]
    assert [row["error"] for row in record["failed"]] == ["no space"]


def collect(value: Any, name: str) -> list[Any]:
    """Returns the values of a key, at any depth."""
    if isinstance(value, list):
        return [found for part in value for found in collect(part, name)]
    if not isinstance(value, dict):
        return []
    found = [value[name]] if name in value else []
    return found + [x for part in value.values() for x in collect(part, name)]


def test_one_seed_has_no_interval_anywhere(tmp_path: Path):
    record = aggregate_study(make_study(tmp_path / "s", METHODS, seeds=(0,)), 30)
    for name in ("interval", "over_seeds", "over_seeds_and_rows", "low", "high"):
        assert set(collect(record, name)) == {None}, name
    assert set(collect(record, "verdict")) == {"no interval"}
    json.dumps(record, allow_nan=False)


def test_a_degenerate_matthews_is_0_and_said(tmp_path: Path):
    def answer_one_class(entry: dict[str, Any], bank: LogitBank) -> None:
        if (entry["method"], entry["seed"]) == ("sweet", 1):
            bank.logits[:, 2, 0] = 50

    folder = make_study(
        tmp_path / "s",
        ("sweet", "early_exit"),
        metric="matthews",
        change_bank=answer_one_class,
    )
    [setting] = aggregate_study(folder, 30)["groups"][0]["settings"]
    sweet = find(setting["methods"], label="sweet")
    assert sweet["degenerate"] == [{"seed": 1, "exits": [2]}]
    assert sweet["exits"][2]["score"]["values"][1] == 0
    assert find(setting["methods"], label="early_exit")["degenerate"] == []


def test_averages_say_over_which_tasks_and_seeds(tmp_path: Path):
    folder = make_study(tmp_path / "s", ("sweet", "early_exit"), tasks=TASKS)
    plan = json.loads((folder / "plan.json").read_text())["cells"]
    # multi_model on one task alone; sweet without seed 2 on the other.
    more = [make_entry("rte", 1000, "multi_model", seed) for seed in (0, 1)]
    for entry in more:
        write_cell(folder, entry)
    gone = make_entry("rte", 1000, "sweet", 2)
    write_plan(folder, [entry for entry in plan if entry != gone] + more)
    average = aggregate_study(folder, 30)["groups"][0]["average"]
    told = {m["label"]: (m["tasks"], m["seeds"]) for m in average["methods"]}
    assert told == {
        "early_exit": (list(TASKS), [0, 1, 2]),
        "multi_model": (["rte"], [0, 1]),
        "sweet": (list(TASKS), [0, 1]),
    }
    pairs = {(p["of"], p["minus"]): p for p in average["differences"]}
    assert pairs["sweet", "early_exit"]["tasks"] == list(TASKS)
    assert pairs["sweet", "early_exit"]["seeds"] == [0, 1]
    assert pairs["sweet", "multi_model"]["tasks"] == ["rte"]


def test_tasks_with_other_exits_are_not_averaged(tmp_path: Path):
    entries = [make_entry(task, 1000, "sweet", 0) for task in TASKS]
    write_cell(tmp_path, entries[0])
    write_cell(tmp_path, entries[1], exit_layers=(0, 5))
    write_plan(tmp_path, entries)
    [group] = aggregate_study(tmp_path, 30)["groups"]
    assert group["average"] is None
    assert [len(s["exit_layers"]) for s in group["settings"]] == [4, 2]


def test_training_is_compared_with_sweet(record: dict[str, Any], tmp_path: Path):
    [setting, _] = record["groups"][0]["settings"]
    training = find(setting["methods"], label="multi_model")["training"]
    assert training == {
        "seconds": 101.0,
        "flops": 1e13,
        "peak_memory_bytes": 1.5e9,
        "parameters": 69e6,
        "over_sweet": {
            "seconds": 1.0,
            "flops": 1.0,
            "peak_memory_bytes": 1.0,
            "parameters": 3.0,
        },
    }
    # One of two seeds does not know its memory: no mean of the other alone.
    folder = make_study(tmp_path / "s", ("early_exit",), (0, 1))
    name = make_entry("rotten_tomatoes", 1000, "early_exit", 1)["name"]
    write_status(folder / "cells" / name, "finished", peak_memory_bytes=None)
    [setting] = aggregate_study(folder, 30)["groups"][0]["settings"]
    training = setting["methods"][0]["training"]
    assert training["peak_memory_bytes"] is None
    assert set(training["over_sweet"].values()) == {None}


@pytest.mark.parametrize(
    ("kind", "interval", "verdict"),
    [
        ("greater", [0.004, 0.02], "held"),
        ("greater", [-0.02, -0.004], "refuted"),
        ("greater", [-0.004, 0.02], "undecided"),
        ("level", [-MARGIN / 2, MARGIN / 2], "held"),
        ("level", [MARGIN / 4, MARGIN / 2], "held"),
        ("level", [-2 * MARGIN, -MARGIN / 4], "refuted"),
        ("level", [-2 * MARGIN, MARGIN / 4], "undecided"),
        ("no_worse", [-MARGIN / 2, 5 * MARGIN], "held"),
        ("no_worse", [-2 * MARGIN, -MARGIN / 2], "refuted"),
        ("no_worse", [-2 * MARGIN, MARGIN], "undecided"),
        ("greater", None, "no interval"),
    ],
)
def test_verdicts(kind: str, interval, verdict: str):
    assert decide(interval, kind) == verdict


# The share of the rows that each exit of a method is right on.
RIGHT = {
    "sweet": (0.9, 0.9, 0.5, 0.5),
    "early_exit": (0.5, 0.5, 0.8, 0.8),
    "multi_model": (0.95,) * 4,
    "sweet(a=0.2)": (0.9, 0.9, 0.8, 0.8),
}


def test_findings_are_about_the_right_exits_and_speeds(tmp_path: Path):
    folder = make_study(tmp_path / "s", METHODS, change_bank=set_right_rows(RIGHT))
    findings = aggregate_study(folder, 30)["groups"][0]["settings"][0]["findings"]
    by_claim = {finding["claim"]: finding for finding in findings}
    assert {
        claim: [(c["of"], c["minus"], c["which"]) for c in finding["comparisons"]]
        for claim, finding in by_claim.items()
    } == {
        "multi_model_exits": [("multi_model", "early_exit", [0, 1, 2, 3])],
        "early_exit_cascade": [("early_exit", "multi_model", [])],
        "sweet_early_exits": [("sweet", "early_exit", [0, 1])],
        "sweet_fast": [
            ("sweet", "early_exit", [3.0, 4.0]),
            ("sweet", "multi_model", [3.0, 4.0]),
        ],
        "sweet_slow": [("sweet", "early_exit", [1.5, 2.0])],
        "seam": [
            ("sweet(a=0.2)", "sweet", [0, 1]),
            ("sweet(a=0.2)", "early_exit", [2, 3]),
        ],
    }
    exits = ("multi_model_exits", "sweet_early_exits", "seam")
    assert [by_claim[claim]["verdict"] for claim in exits] == ["held"] * 3
    assert by_claim["early_exit_cascade"]["verdict"] == "refuted"
    [early] = by_claim["sweet_early_exits"]["comparisons"]
    assert early["mean"] == pytest.approx(0.4)
    assert [row["which"] for row in early["points"]] == [[0], [1]]
    parts = np.mean([row["values"] for row in early["points"]], axis=0)
    assert early["values"] == pytest.approx(list(parts), abs=2e-6)
    [cascade] = by_claim["early_exit_cascade"]["comparisons"]
    assert [row["which"] for row in cascade["points"]] == [[1.5], [2.0], [3.0], [4.0]]
    assert {row["what"] for row in cascade["points"]} == {"speedup"}


def list_verdicts(finding: dict[str, Any]) -> list[str]:
    """Returns the verdicts at the exits or speed-ups of a finding."""
    return [row["verdict"] for c in finding["comparisons"] for row in c["points"]]


def test_a_mean_decides_no_exit(tmp_path: Path):
    # 2 of 90 rows more are undecided, 9 are decided.
    shares = {"early_exit": (0.5,) * 4, "multi_model": (0.9, 0.52, 0.52, 0.52)}
    folder = make_study(tmp_path / "s", shares, change_bank=set_right_rows(shares))
    [setting] = aggregate_study(folder, 200)["groups"][0]["settings"]
    finding = find(setting["findings"], claim="multi_model_exits")
    assert list_verdicts(finding) == ["held", *["undecided"] * 3]
    assert (finding["verdict"], finding["mean_verdict"]) == ("undecided", "held")


def test_neither_an_average_nor_an_area_hides_a_part(tmp_path: Path):
    # By its area early_exit is ahead on both tasks, at 4x on one alone.
    shares = {
        "early_exit": (0.0, 1.0, 1.0, 1.0),
        "multi_model": (0.62,) * 4,
        "early_exit on rte": (0.45, 0.95, 0.95, 0.95),
        "multi_model on rte": (0.4,) * 4,
    }
    folder = make_study(
        tmp_path / "s",
        ("early_exit", "multi_model"),
        tasks=TASKS,
        change_bank=set_right_rows(shares),
    )
    group = aggregate_study(folder, 200)["groups"][0]
    whole = find(group["average"]["findings"], claim="early_exit_cascade")
    assert whole["mean_verdict"] == "held"
    assert whole["verdict"] == "refuted"
    assert whole["by_task"] == {"rotten_tomatoes": "refuted", "rte": "held"}
    [first, _] = group["settings"]
    part = find(first["findings"], claim="early_exit_cascade")
    assert list_verdicts(part) == ["held", "undecided", "undecided", "refuted"]
    assert (part["verdict"], part["mean_verdict"]) == ("refuted", "held")


def test_one_comparison_refutes_a_claim_of_two(tmp_path: Path):
    shares = {"sweet": (0.3,) * 4, "early_exit": (0.8,) * 4}
    folder = make_study(tmp_path / "s", shares, change_bank=set_right_rows(shares))
    [setting] = aggregate_study(folder, 200)["groups"][0]["settings"]
    # Against multi_model, which is not there, nothing is known.
    assert find(setting["findings"], claim="sweet_fast")["verdict"] == "refuted"
    shares["sweet"] = (0.95,) * 4
    folder = make_study(tmp_path / "t", shares, change_bank=set_right_rows(shares))
    [setting] = aggregate_study(folder, 200)["groups"][0]["settings"]
    assert "sweet_fast" not in {row["claim"] for row in setting["findings"]}


def test_tasks_without_a_common_seed_keep_their_verdicts(tmp_path: Path):
    shares = {"early_exit": (0.5,) * 4, "multi_model": (0.9,) * 4}
    folder = tmp_path / "s"
    entries = []
    for task, seeds in zip(TASKS, ((0, 1, 2), (3, 4, 5)), strict=True):
        make_study(folder, shares, seeds, (task,), change_bank=set_right_rows(shares))
        entries += json.loads((folder / "plan.json").read_text())["cells"]
    write_plan(folder, entries)
    average = aggregate_study(folder, 200)["groups"][0]["average"]
    assert average["methods"] == []
    finding = find(average["findings"], claim="multi_model_exits")
    assert finding["verdict"] == "no interval"
    assert finding["by_task"] == dict.fromkeys(TASKS, "held")
    finding = find(average["findings"], claim="early_exit_cascade")
    assert finding["verdict"] == "refuted"


def test_aggregation_imports_no_training_code():
    code = (
        "import sys, sweet_jax.study.aggregate\n"
        "heavy = ('flax', 'optax', 'orbax', 'transformers', 'matplotlib')\n"
        "print([m for m in sys.modules if m.startswith(('sweet_jax.training',"
        " 'sweet_jax.models', 'sweet_jax.runs.pipeline')) or m in heavy])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
