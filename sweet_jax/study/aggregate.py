"""Aggregates the measured cells of a study to the content of study.json."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sweet_jax.evaluation.statistics import LEVEL
from sweet_jax.study.estimates import (
    Sample,
    average,
    describe_curve,
    describe_difference,
    describe_mean,
    subtract,
)
from sweet_jax.study.findings import (
    FAST,
    MARGIN,
    SLOW,
    Subject,
    add_tasks,
    make_findings,
)
from sweet_jax.study.folder import FinishedCell
from sweet_jax.study.measure import (
    Setting,
    find_degenerate_exits,
    get_costs,
    make_cost_grid,
)
from sweet_jax.study.measured_study import MeasuredStudy, TaskCells
from sweet_jax.study.training_cost import add_ratios, describe_training

SCHEMA = 3
# The comparisons of the paper; every other method is compared with the last two.
_PAIRS = (
    ("multi_model", "early_exit"),
    ("sweet", "early_exit"),
    ("sweet", "multi_model"),
)
_PAPER = ("early_exit", "multi_model", "sweet")


def aggregate_study(measured: MeasuredStudy) -> dict[str, Any]:
    """Returns the content of study.json, plain JSON values without NaN."""
    study = measured.study
    scored = [entry for entry in study.entries if entry.purpose == "score"]
    return {
        "schema": SCHEMA,
        "name": study.name,
        "level": LEVEL,
        "num_draws": measured.num_draws,
        "fast_from": FAST,
        "slow_to": SLOW,
        "margin": MARGIN,
        "num_planned": len(study.entries),
        "num_scores_planned": len(scored),
        "failed": [{"name": n, "error": study.failed[n]} for n in study.failed],
        "missing": study.missing,
        "choices": [dataclasses.asdict(choice) for choice in study.choices],
        "groups": [
            _describe_group(encoder, train_size, tasks)
            for (encoder, train_size), tasks in measured.groups.items()
        ],
    }


def _describe_group(
    encoder: str, train_size: int, tasks: dict[str, TaskCells]
) -> dict[str, Any]:
    """Returns the settings of one encoder and size, and their average over tasks."""
    settings = [_describe_task(task, part) for task, part in tasks.items()]
    average = _describe_average(tasks)
    if average is not None:
        by_task = {setting["task"]: setting["findings"] for setting in settings}
        average["findings"] = add_tasks(average["findings"], by_task)
    return {
        "encoder": encoder,
        "train_size": train_size,
        "settings": settings,
        "average": average,
    }


def _describe_task(task: str, part: TaskCells) -> dict[str, Any]:
    results = part.first_cell(next(iter(part.samples))).results
    described = _describe({task: part})
    for method in described["methods"]:
        cells = part.cells[method["label"]]
        method["training"] = describe_training(list(cells.values()))
        method["degenerate"] = [
            {"seed": seed, "exits": exits}
            for seed, cell in cells.items()
            if (exits := find_degenerate_exits(cell))
        ]
    add_ratios(described["methods"])
    return {
        "task": task,
        "metric": part.setting.metric,
        "num_test_rows": len(part.setting.labels),
        "majority": results["majority"],
        **described,
    }


def _describe_average(tasks: dict[str, TaskCells]) -> dict[str, Any] | None:
    """Returns the average over tasks, None for one task or settings that differ.

    A method without cells on some tasks is averaged over its own tasks, which the
    result lists; a difference is averaged over the tasks that both methods have.
    """
    shapes = {
        (s.exit_layers, s.criteria, s.targets)
        for s in (part.setting for part in tasks.values())
    }
    return _describe(tasks) if len(tasks) > 1 and len(shapes) == 1 else None


def _describe(tasks: dict[str, TaskCells]) -> dict[str, Any]:
    """Returns methods, differences and findings of one task, or averaged over tasks."""
    setting = next(iter(tasks.values())).setting
    firsts = {
        label: part.first_cell(label)
        for part in tasks.values()
        for label in part.samples
    }
    samples = {label: _average_method(tasks, label) for label in _order(firsts)}
    # There may be no seed with cells on every task.
    labels = [label for label, (_, sample) in samples.items() if sample]
    pairs = {pair: _average_difference(tasks, *pair) for pair in _pair(labels)}

    @functools.cache
    def subtract_fn(ours: str, theirs: str) -> Sample:
        return _average_difference(tasks, ours, theirs)[1]

    subject = Subject(
        bases={label: firsts[label].results["method"] for label in labels},
        num_exits=len(setting.exit_layers),
        targets=setting.targets,
        criterion=setting.criteria[0],
        subtract_fn=subtract_fn,
    )
    return {
        "tasks": list(tasks),
        "exit_layers": list(setting.exit_layers),
        "criteria": list(setting.criteria),
        "methods": [
            {
                "label": label,
                "method": firsts[label].results["method"],
                **_describe_method(setting, firsts[label], *samples[label]),
            }
            for label in labels
        ],
        "differences": [
            {
                "of": ours,
                "minus": theirs,
                **_describe_pair(setting, shared, sample),
            }
            for (ours, theirs), (shared, sample) in pairs.items()
            if sample
        ],
        "findings": make_findings(subject),
    }


def _average_method(
    tasks: dict[str, TaskCells], label: str
) -> tuple[list[str], Sample]:
    """Returns the tasks of a method, and its mean over them per seed."""
    parts = {t: p.samples[label] for t, p in tasks.items() if label in p.samples}
    return list(parts), average(list(parts.values()))


def _average_difference(
    tasks: dict[str, TaskCells], ours: str, theirs: str
) -> tuple[list[str], Sample]:
    """Returns the tasks with seeds of both methods, and their mean difference."""
    parts = {
        task: subtract(part.samples[ours], part.samples[theirs])
        for task, part in tasks.items()
        if {ours, theirs} <= part.samples.keys()
    }
    parts = {task: sample for task, sample in parts.items() if sample}
    return list(parts), average(list(parts.values())) if parts else {}


def _describe_method(
    setting: Setting, cell: FinishedCell, tasks: list[str], sample: Sample
) -> dict[str, Any]:
    costs_E = get_costs(cell)
    grid = make_cost_grid(costs_E)
    return {
        "tasks": tasks,
        "seeds": list(sample),
        "exits": [
            {
                "exit": i,
                "layer": layer,
                "cost_fraction": float(costs_E[i]),
                "score": describe_mean(sample, "exits", [i]),
            }
            for i, layer in enumerate(setting.exit_layers)
        ],
        "mean_exit": describe_mean(sample, "exits", range(len(costs_E))),
        "area": {c: describe_mean(sample, f"area/{c}", [0]) for c in setting.criteria},
        "at_cost": _describe_targets(setting, describe_mean, sample, "at_cost"),
        "at_speedup": {
            c: [
                {
                    "target": target,
                    "score": describe_mean(sample, f"speedup/{c}", [k]),
                    "cost_fraction": describe_mean(sample, f"cost/{c}", [k]),
                }
                for k, target in enumerate(setting.targets)
            ]
            for c in setting.criteria
        },
        "curves": {
            c: describe_curve(sample, f"curve/{c}", grid) for c in setting.criteria
        },
    }


def _describe_pair(
    setting: Setting, tasks: list[str], sample: Sample
) -> dict[str, Any]:
    every = range(len(setting.exit_layers))
    return {
        "tasks": tasks,
        "seeds": list(sample),
        "exits": [describe_difference(sample, "exits", [i]) for i in every],
        "mean_exit": describe_difference(sample, "exits", every),
        "area": {
            c: describe_difference(sample, f"area/{c}", [0]) for c in setting.criteria
        },
        "at_cost": _describe_targets(setting, describe_difference, sample, "at_cost"),
        "at_speedup": _describe_targets(
            setting, describe_difference, sample, "speedup"
        ),
    }


def _describe_targets(
    setting: Setting,
    describe_fn: Callable[[Sample, str, Sequence[int]], dict[str, Any] | None],
    sample: Sample,
    name: str,
) -> dict[str, list[dict[str, Any]]]:
    """Describes numbers that have one entry per speed-up, by criterion."""
    return {
        c: [
            {"target": target, "score": describe_fn(sample, f"{name}/{c}", [k])}
            for k, target in enumerate(setting.targets)
        ]
        for c in setting.criteria
    }


def _order(labels: Iterable[str]) -> list[str]:
    """Returns the labels, the paper's methods first."""
    known = list(dict.fromkeys(labels))
    first = [label for label in _PAPER if label in known]
    return first + [label for label in known if label not in _PAPER]


def _pair(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the pairs of methods to compare: the paper's pairs, then the others."""
    others = [label for label in labels if label not in _PAPER]
    pairs = [*_PAIRS, *itertools.product(others, ("early_exit", "sweet"))]
    return [pair for pair in pairs if set(pair) <= set(labels)]
