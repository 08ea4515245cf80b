"""Study folders, as a study leaves them, of cells evaluated from random logits."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.banks import CascadeSpec, evaluate_banks
from sweet_jax.evaluation.cascade import costs_from_layers
from sweet_jax.evaluation.statistics import NUM_DRAWS
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.learned import fit_lte_ranges
from sweet_jax.study.aggregate import aggregate_study
from sweet_jax.study.folder import READ_FILES
from sweet_jax.study.measured_study import measure_study
from sweet_jax.system.checksums import record, write_sealed

METHODS = ("sweet", "early_exit", "multi_model", "sweet(a=0.2)")
TASKS = ("rotten_tomatoes", "rte")
EXIT_LAYERS = (0, 1, 3, 5)
SPEEDUPS = (1.5, 2.0, 3.0, 4.0, 100.0)  # nothing reaches the last one
NUM_TEST, NUM_CALIBRATION = 90, 60
# How far each exit's logits point at the label: sweet first at the first exits.
_GAINS = {
    "sweet": (1.3, 1.4, 1.6, 1.7),
    "early_exit": (0.5, 1.0, 1.8, 2.0),
    "multi_model": (1.3, 1.5, 1.9, 2.1),
}


def make_study(
    folder: Path,
    methods: Iterable[str] = ("sweet", "early_exit", "multi_model"),
    seeds: Iterable[int] = (0, 1, 2),
    tasks: Iterable[str] = ("rotten_tomatoes",),
    sizes: Iterable[int] = (1000,),
    choices: Iterable[dict[str, Any]] = (),
    **cell_fields: Any,
) -> Path:
    """Writes plan.json and a finished cell per task, size, method and seed.

    Args:
        folder: of the study.
        methods: labels.
        seeds: of the cells.
        tasks: names; rows and labels follow from them.
        sizes: training examples.
        choices: of learning rates.
        **cell_fields: arguments of `write_cell`.
    """
    entries = []
    for task in tasks:
        for size in sizes:
            for method in methods:
                for seed in seeds:
                    entry = make_entry(task, size, method, seed)
                    write_cell(folder, entry, **cell_fields)
                    entries.append(entry)
    write_plan(folder, entries, choices)
    return folder


def aggregate(folder: Path, num_draws: int = NUM_DRAWS) -> dict[str, Any]:
    """Returns the content of a study's study.json."""
    return aggregate_study(measure_study(folder, num_draws))


def find(rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Returns the only row with these fields."""
    [row] = [r for r in rows if all(r[name] == x for name, x in fields.items())]
    return row


def make_entry(
    task: str, size: int, method: str, seed: int, purpose: str = "score"
) -> dict[str, Any]:
    """Returns a cell of the plan."""
    return {
        "name": f"{task}-tiny-n{size}-{method}-s{seed}-{purpose}",
        "purpose": purpose,
        "task": task,
        "encoder": "tiny",
        "train_size": size,
        "method": method,
        "seed": seed,
        "encoder_learning_rate": None,
        "exit_learning_rate": None,
    }


def write_plan(
    folder: Path,
    entries: Iterable[dict[str, Any]],
    choices: Iterable[dict[str, Any]] = (),
) -> None:
    """Writes plan.json."""
    plan = {"schema": 1, "name": "a study", "base": {}, "cells": list(entries)}
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / "plan.json", {**plan, "choices": list(choices)})


def write_cell(
    folder: Path,
    entry: dict[str, Any],
    metric: str = "accuracy",
    exit_layers: tuple[int, ...] = EXIT_LAYERS,
    criteria: tuple[str, ...] = ("confidence", "patience"),
    change_bank: Callable[[dict[str, Any], LogitBank], None] | None = None,
) -> Path:
    """Writes a finished cell whose results follow from random logits.

    Args:
        folder: of the study.
        entry: of the plan.
        metric: of the score.
        exit_layers: the layer each exit reads.
        criteria: exit criteria; with `lte` the exits have learned to exit.
        change_bank: changes the arrays of an entry's test bank in place.
    """
    base = entry["method"].partition("(")[0]
    separate_models = base == "multi_model"
    sizes, learns = (NUM_TEST, NUM_CALIBRATION), "lte" in criteria
    test, calibration = (
        _make_bank(entry, base, rows, len(exit_layers), learns) for rows in sizes
    )
    if change_bank is not None:
        change_bank(entry, test)
    evaluation = evaluate_banks(
        CascadeSpec(separate_models, exit_layers, criteria, 11, SPEEDUPS),
        test=test,
        calibration=Calibration(
            calibration,
            np.linspace(1.4, 1.1, len(exit_layers)).astype(np.float32),
            fit_lte_ranges(calibration.select_part(0)),
            costs_from_layers(exit_layers, separate_models),
            metric,
        ),
        train_label_counts_C=np.array([500, 500]),
    )
    results = {
        "schema": 1,
        "method": base,
        "method_label": entry["method"],
        "task": entry["task"],
        "metric": metric,
        "encoder": entry["encoder"],
        "seed": entry["seed"],
        "exit_layers": list(exit_layers),
        "num_layers": exit_layers[-1] + 1,
        "label_names": ["no", "yes"],
        "splits": {"train": entry["train_size"], "test": NUM_TEST},
        "notes": [],
        "faithful_release": False,
        "cost_formula": "layers",
        "truncated_rows": {"train": 0},
        "padded_over_real": 1.0,
        "versions": {},
        **evaluation.to_results(),
        "parameters": 23_000_000 * (3 if base == "multi_model" else 1),
        "training_flops": 1e13,
        "training_temporary_bytes": 1 << 28,
        "programs": {"train": 1, "evaluate": 1},
        "origin": {},
        "extra_tests": {},
        "seconds": {
            "load": 1.0,
            "compile": 10.0,
            "train": 100.0 + entry["seed"],
            "evaluate": 5.0,
        },
    }
    path = folder / "cells" / entry["name"]
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    test.save(path / "logits_test.npz", "digest")
    calibration.save(path / "logits_calibration.npz", "digest")
    record(path, *READ_FILES)
    write_status(path, "finished", peak_memory_bytes=1_500_000_000)
    return path


def set_right_rows(
    shares: dict[str, Sequence[float]],
) -> Callable[[dict[str, Any], LogitBank], None]:
    """Returns a `change_bank` that makes methods right on the first rows alone.

    Args:
        shares: by method, or `METHOD on TASK`: the share of rows that each exit is
            right on, with every seed.
    """

    def change_bank(entry: dict[str, Any], bank: LogitBank) -> None:
        method, rows = entry["method"], np.arange(len(bank.labels))
        found = shares.get(f"{method} on {entry['task']}") or shares[method]
        for i, share in enumerate(found):
            right = bank.row_ids < share * len(rows)
            answers = np.where(right, bank.labels, 1 - bank.labels)
            bank.logits[rows, i, answers] = bank.logits[:, i].max(axis=1) + 1

    return change_bank


def change_results(path: Path, **changes: Any) -> None:
    """Changes fields of a cell's results.json."""
    results = json.loads((path / "results.json").read_text())
    (path / "results.json").write_text(json.dumps({**results, **changes}))
    record(path, "results.json")


def write_status(
    path: Path,
    status: str,
    error: str | None = None,
    peak_memory_bytes: int | None = None,
) -> None:
    """Writes cell.json."""
    path.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": 1,
        "status": status,
        "error": error,
        "peak_memory_bytes": peak_memory_bytes,
        "seconds": 120.0,
    }
    write_sealed(path / "cell.json", content)


def _make_bank(
    entry: dict[str, Any], method: str, num_rows: int, num_exits: int, learns: bool
) -> LogitBank:
    """Returns a bank: labels and how hard rows are by task, the rest by cell."""
    task_rng = np.random.default_rng([*entry["task"].encode(), num_rows])
    labels = task_rng.integers(2, size=num_rows)
    ease = task_rng.normal(0.6, 0.8, (num_rows, 1))
    cell_rng = np.random.default_rng([*entry["name"].encode(), num_rows])
    logits = cell_rng.normal(size=(num_rows, num_exits, 2)).astype(np.float32)
    gains = np.resize(_GAINS[method], num_exits) + cell_rng.normal(0, 0.05)
    gains += np.log10(entry["train_size"] / 1000) / 4
    logits[np.arange(num_rows), :, labels] += (gains * ease).astype(np.float32)
    # Rows are collected by length, so that every run has an order of its own.
    order = cell_rng.permutation(num_rows)
    return LogitBank(
        logits=logits[order],
        labels=labels[order],
        weights=np.ones(num_rows, np.float32),
        row_ids=order,
        part=order % 2,
        lte=cell_rng.uniform(0.3, 0.8, (num_rows, num_exits)) if learns else None,
    )
