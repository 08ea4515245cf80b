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
    METHODS,
    SPEEDUPS,
    TASKS,
    aggregate,
    find,
    make_entry,
    make_study,
    write_cell,
    write_plan,
    write_status,
)

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation import metrics
from sweet_jax.evaluation.statistics import two_level_interval
from sweet_jax.settings.registries import METRICS
from sweet_jax.study.folder import read_study
from sweet_jax.study.measure import Setting

NUM_DRAWS = 40


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Two tasks, four methods, three seeds."""
    return make_study(tmp_path_factory.mktemp("study"), METHODS, tasks=TASKS)


@pytest.fixture(scope="module")
def record(study: Path) -> dict[str, Any]:
    """What it aggregates to."""
    return aggregate(study, NUM_DRAWS)


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
    assert aggregate(copy, 30) == aggregate(small, 30)


def test_a_study_without_a_finished_cell_aggregates(tmp_path: Path):
    write_plan(tmp_path, [make_entry("rte", 1000, "sweet", 0)])
    record = aggregate(tmp_path)
    assert record["groups"] == []
    assert len(record["missing"]) == 1


def test_searches_of_learning_rates_enter_no_average(small: Path):
    plan = json.loads((small / "plan.json").read_text())
    search = make_entry("rotten_tomatoes", 1000, "sweet", 100, purpose="learning_rates")
    write_cell(small, search)
    failed = make_entry("rotten_tomatoes", 1000, "sweet", 101, purpose="learning_rates")
    write_status(small / "cells" / failed["name"], "failed", "no space")
    chosen = {"encoder_learning_rate": 1e-4, "exit_learning_rate": None}
    names = {"task": "rte", "encoder": "tiny", "train_size": 1, "method": "sweet"}
    choice = {**names, "tried": [{**chosen, "score": 0.5}], "chosen": chosen}
    write_plan(small, [*plan["cells"], search, failed], [choice])
    record = aggregate(small, 30)
    [setting] = record["groups"][0]["settings"]
    assert find(setting["methods"], label="sweet")["seeds"] == [0, 1, 2]
    assert record["choices"] == [choice]
    assert [row["error"] for row in record["failed"]] == ["no space"]


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
    [setting] = aggregate(folder, 30)["groups"][0]["settings"]
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
    average = aggregate(folder, 30)["groups"][0]["average"]
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
    [group] = aggregate(tmp_path, 30)["groups"]
    assert group["average"] is None
    assert [len(s["exit_layers"]) for s in group["settings"]] == [4, 2]


# The share of the rows that each exit of a method is right on.


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


@pytest.mark.usefixtures("registries")
def test_a_registered_metric_is_compared_as_ours_with_fewer_draws(tmp_path):
    """The accuracy once more, as a function of rows."""
    metrics.register_metric(
        "agreement", lambda labels, found, _: (labels == found).mean()
    )
    ours, theirs = (
        make_study(tmp_path / metric, ("sweet",), seeds=(0,), metric=metric)
        for metric in ("accuracy", "agreement")
    )
    found, expected = aggregate(theirs), aggregate(ours, num_draws=200)
    assert found["num_draws"] == expected["num_draws"] == 200
    assert found["failed"] == []
    for one, other in zip(
        found["groups"][0]["settings"][0]["methods"],
        expected["groups"][0]["settings"][0]["methods"],
        strict=True,
    ):
        assert one["exits"] == other["exits"]
        area, wanted = (next(iter(method["area"].values())) for method in (one, other))
        assert area["mean"] == pytest.approx(wanted["mean"], abs=0.01)


@pytest.mark.usefixtures("registries")
def test_cells_of_a_metric_that_nobody_registered_have_failed(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METRICS, "_values", dict(METRICS._values))
        metrics.register_metric("agreement", lambda y, found, _: (y == found).mean())
        study = make_study(tmp_path, ("sweet",), seeds=(0,), metric="agreement")
    (failed,) = aggregate(study)["failed"]
    assert "metric='agreement': allowed are accuracy" in failed["error"]
