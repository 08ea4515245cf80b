"""Work directories of finished runs, as the report reads them, from random logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.system.checksums import record

EXIT_LAYERS = (0, 1, 3, 5)
NUM_STEPS = 120
CRITERIA = ("confidence", "entropy", "margin", "patience")
SPEEDUPS = (1.5, 2.0, 3.0, 4.0, 100.0)  # nothing reaches the last one


def make_workdir(
    path: Path,
    num_classes: int = 2,
    seed: int = 0,
    exit_layers: tuple[int, ...] = EXIT_LAYERS,
    num_examples: int = 120,
    criteria: tuple[str, ...] = CRITERIA,
    extra_tests: tuple[str, ...] = (),
    logged: bool = True,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Writes a work directory whose numbers follow from one set of random logits.

    Args:
        path: of the directory.
        num_classes: C.
        seed: of the logits, and the run's own.
        exit_layers: the layer each exit reads.
        num_examples: rows of every test set.
        criteria: those that were swept.
        extra_tests: names of further test sets, each with logits of its own.
        logged: whether there is a metrics.jsonl.
        settings: of `optim` in config.json.
        **changes: of fields of results.json.
    """
    rng = np.random.default_rng(seed)
    method = changes.get("method", "sweet")
    layers_run = np.array(exit_layers) + 1
    paid = np.cumsum(layers_run) if method == "multi_model" else layers_run
    costs = paid / layers_run[-1]
    sizes = (num_examples, num_classes, exit_layers, costs, criteria)
    measures, arrays = _measure(rng, *sizes)
    extra = {}
    # From 1: (seed, 0) is the same seed as the run's, and gives the same logits.
    for i, name in enumerate(extra_tests, start=1):
        every, _ = _measure(np.random.default_rng((seed, i)), *sizes)
        extra[name] = {field: every[field] for field in ("exits", "at_speedup", "area")}
    results = {
        "schema": 1,
        "method": method,
        "method_label": method,
        "boundary_gradient_scale": 0.0,
        "task": "rotten_tomatoes",
        "metric": "accuracy",
        "encoder": "minilm-l6",
        "seed": seed,
        "exit_layers": list(exit_layers),
        "num_layers": 6,
        "label_names": [f"class {c}" for c in range(num_classes)],
        "splits": {"train": 2000, "calibration": 1000, "test": num_examples},
        "origin": {"test": "120 of 8530 rows", "train": "2000 of a pool of 6000 rows"},
        "notes": ["the test split is the published one"],
        "cost_formula": "sum_i n_i (e_i + 1) / (N (e_last + 1))",
        **measures,
        "majority": 1 / num_classes,
        "full": measures["exits"][-1]["score"],
        "oracle_exit": {"score": 0.95, "accuracy": 0.95, "cost_fraction": 0.31},
        "extra_tests": extra,
        "faithful_release": False,
        "truncated_rows": {"train": 3, "test": 1},
        "padded_over_real": 1.27,
        "parameters": 23_159_816,
        "training_flops": 13517280430080.0,
        "training_temporary_bytes": 314889600,
        "programs": {"train": 5, "evaluate": 4},
        "seconds": {"load": 2.1, "compile": 11.0, "train": 141.5, "evaluate": 4.2},
        "versions": {"sweet_jax": "0.1.0", "python": "3.11"},
        **changes,
    }
    config = {
        "schema": 1,
        "settings": {"seed": seed, "optim": {"clip_norm": 1.0, **(settings or {})}},
        # Digests of inputs follow the seed: they must not set seeds apart.
        "training": {"inputs.train": f"digest {seed}"},
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (path / "config.json").write_text(json.dumps(config))
    np.savez(path / "curves.npz", **arrays)  # type: ignore[arg-type]
    if logged:
        rows = _make_log(rng, method, len(exit_layers))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (path / "metrics.jsonl").write_text(text)
    record_files(path)
    return path


def record_files(workdir: Path) -> None:
    """Takes the files of a run for what it wrote, in its checksums.json."""
    names = ("results.json", "config.json", "curves.npz", "metrics.jsonl")
    record(workdir, *(name for name in names if (workdir / name).exists()))


def change_results(workdir: Path, **changes: Any) -> dict[str, Any]:
    """Changes fields of results.json and returns all of it."""
    path = workdir / "results.json"
    results = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(results), encoding="utf-8")
    record_files(workdir)
    return results


def _measure(
    rng: np.random.Generator,
    num_examples: int,
    num_classes: int,
    exit_layers: tuple[int, ...],
    costs_E: np.ndarray,
    criteria: tuple[str, ...],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what evaluation finds on a test set, and the arrays of curves.npz."""
    num_exits = len(exit_layers)
    labels = rng.integers(num_classes, size=num_examples)
    # Deeper exits see the label better; examples are harder or easier at all exits.
    ease = rng.normal(1, 1, size=(num_examples, 1))
    gain = np.linspace(1.0, 1.9, num_exits)
    logits = rng.normal(size=(num_examples, num_exits, num_classes))
    logits[np.arange(num_examples), :, labels] += gain * ease
    right = logits.argmax(-1) == labels[:, None]
    probabilities = {"before": _softmax(2 * logits), "after": _softmax(logits)}
    arrays: dict[str, np.ndarray] = {}
    exits = []
    for i, layer in enumerate(exit_layers):
        ece = {}
        for stage, p in probabilities.items():
            bins = _reliability(p[:, i].max(-1), right[:, i])
            gaps = np.nan_to_num(np.abs(bins["confidence"] - bins["accuracy"]))
            ece[stage] = float(gaps @ bins["count"] / num_examples)
            for name, values in bins.items():
                arrays[f"reliability/{stage}/exit_{i}/{name}"] = values
        chosen = probabilities["after"][np.arange(num_examples), i, labels]
        exits.append(
            {
                "exit": i,
                "layer": layer,
                "score": float(right[:, i].mean()),
                "accuracy": float(right[:, i].mean()),
                "nll": float(-np.log(chosen).mean()),
                "ece_before": ece["before"],
                "ece_after": ece["after"],
                "temperature": 2.0,
                "cost_fraction": float(costs_E[i]),
            }
        )
    curves, at_speedup, area = {}, {}, {}
    all_scores = _scores(probabilities["after"])
    for criterion in criteria:
        scores = all_scores[criterion]
        low = 1 / num_classes if criterion == "confidence" else 0
        grid, dense = np.linspace(low, 1, 11), np.linspace(low, 1, 101)
        if criterion == "patience":
            grid = dense = np.arange(1.0, num_exits + 1)
        # Every fourth value keeps the slow cascade quick; patience has few anyway.
        values = np.unique(scores[:, :-1])
        exact = np.append(values[:: 4 if len(values) > 9 else 1], np.inf)
        score, cost, _ = _sweep(scores, right, costs_E, exact)
        points = zip(grid, *_sweep(scores, right, costs_E, grid), strict=True)
        _, _, counts = _sweep(scores, right, costs_E, dense)
        arrays |= {
            f"exact/{criterion}/threshold": exact,
            f"exact/{criterion}/score": np.array(score),
            f"exact/{criterion}/cost_fraction": np.array(cost),
            f"share/{criterion}/threshold": dense,
            f"share/{criterion}/share": np.array(counts) / num_examples,
        }
        curves[criterion] = [
            {
                "threshold": float(t),
                "score": s,
                "accuracy": s,
                "cost_fraction": c,
                "speedup": 1 / c,
                "exit_counts": n,
            }
            for t, s, c, n in points
        ]
        at_speedup[criterion] = [_find(exact, score, cost, s) for s in SPEEDUPS]
        area[criterion] = float(np.mean(score))
    measures = {"exits": exits, "curves": curves, "at_speedup": at_speedup}
    return {**measures, "area": area}, arrays


def _find(exact, score, cost, target: float) -> dict[str, float | None]:
    """Returns the best point of an exact curve within the cost of a speed-up."""
    reached = [k for k, c in enumerate(cost) if c <= 1 / target]
    names = ("threshold", "score", "accuracy", "cost_fraction", "oracle")
    if not reached:
        return {"target": target, **dict.fromkeys(names)}
    k = max(reached, key=lambda k: score[k])
    threshold = float(exact[k]) if np.isfinite(exact[k]) else None
    point = (threshold, score[k], score[k], cost[k], score[k])
    return {"target": target, **dict(zip(names, point, strict=True))}


def _sweep(scores_NE, right_NE, costs_E, thresholds) -> tuple[tuple, tuple, tuple]:
    """Returns accuracies, costs and examples per exit, the slow and obvious way."""
    points = []
    for threshold in thresholds:
        leave = [
            next((i for i, s in enumerate(row[:-1]) if s >= threshold), len(row) - 1)
            for row in scores_NE.tolist()
        ]
        accuracy = float(np.mean(right_NE[np.arange(len(leave)), leave]))
        counts = np.bincount(leave, minlength=len(costs_E))
        cost = float(counts @ costs_E / counts.sum())
        points.append((accuracy, cost, counts.tolist()))
    accuracies, costs, all_counts = zip(*points, strict=True)
    return accuracies, costs, all_counts


def _scores(probabilities_NEC: np.ndarray) -> dict[str, np.ndarray]:
    p = np.clip(probabilities_NEC, 1e-9, 1)
    ordered = np.sort(p, axis=-1)
    predicted = p.argmax(-1)
    runs = np.ones(predicted.shape)
    for i in range(1, predicted.shape[1]):
        same = predicted[:, i] == predicted[:, i - 1]
        runs[:, i] = np.where(same, runs[:, i - 1] + 1, 1)
    return {
        "confidence": ordered[..., -1],
        "entropy": 1 + (p * np.log(p)).sum(-1) / np.log(p.shape[-1]),
        "margin": ordered[..., -1] - ordered[..., -2],
        "patience": runs,
    }


def _reliability(confidence_N, right_N) -> dict[str, np.ndarray]:
    bins = np.minimum((confidence_N * 15).astype(int), 14)
    count = np.bincount(bins, minlength=15)
    means = []
    for values in (confidence_N, right_N):
        sums = np.bincount(bins, values, minlength=15)
        means.append(np.where(count > 0, sums / np.maximum(count, 1), np.nan))
    return {"confidence": means[0], "accuracy": means[1], "count": count}


def _softmax(values: np.ndarray) -> np.ndarray:
    exponents = np.exp(values - values.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def _make_log(
    rng: np.random.Generator, method: str, num_exits: int
) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl; members are trained one after the other."""
    exits = range(num_exits)
    phases: list[tuple[str | None, list[int]]] = [(None, list(exits))]
    if method == "multi_model":
        phases = [(f"member_{i}", [i]) for i in exits]
    rows: list[dict[str, Any]] = []
    for member, trained in phases:
        rows.append({"step": 0, "member": member, "cost": {"num_programs": 5}})
        rows += [
            {
                "step": step,
                "member": member,
                "epoch": step / 40,
                "loss": [
                    0.7 * np.exp(-step * (1 + i / 8) / 60) + 0.05 * rng.random()
                    for i in trained
                ],
                "examples_per_second": 120.0,
                "learning_rate": 1e-4,
            }
            for step in range(1, NUM_STEPS + 1)
        ]
    return rows
