"""Evaluates the defaults on unused rows: those of the pool without training rows.

    python benchmarks/confirm_defaults.py runs/seeds/{sweet,early_exit}-s{0,1,2}

Each run is a finished main job on the embedded task, which trained on 2,000 rows of a
pool of 6,000. Neither a search nor a reported number used the other rows. The table has
the accuracy of every exit on them, and the mean over the runs of a method.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.data.examples import Examples
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.runs.evaluate import evaluate_on
from sweet_jax.runs.workdir import read_settings
from sweet_jax.settings.fields import replace_fields
from sweet_jax.settings.from_config import from_config_dict


def find_unread(run: Path) -> tuple[Examples, tuple[str, ...]]:
    """Returns the run's pool rows that it did not train on, and the label names."""
    settings = from_config_dict(read_settings(run))
    raw = load_task(settings.data)
    trained = make_splits(raw, settings).train
    everything = replace_fields(settings, {"data.max_train_examples": 0})
    pool = make_splits(raw, everything).train
    unread = pool.select(np.flatnonzero(~np.isin(pool.row_ids, trained.row_ids)))
    return unread, raw.label_names


def measure(run: Path) -> dict[str, Any]:
    """Evaluates a run on its unused rows; returns the content of a results.json."""
    unread, label_names = find_unread(run)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "unread.jsonl"
        with rows.open("w", encoding="utf-8") as file:
            for text, label in zip(unread.texts, unread.labels, strict=True):
                row = {"text": text, "label": label_names[label]}
                file.write(json.dumps(row) + "\n")
        results, _ = evaluate_on(run, str(rows), output=Path(folder) / "evaluation")
    return results


def main() -> None:
    """Prints a row per run and a mean per method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    scores: dict[str, list[list[float]]] = defaultdict(list)
    print("| run | rows | by exit |")
    print("|---|---|---|")
    for run in parser.parse_args().runs:
        results = measure(run)
        by_exit = [exit["score"] for exit in results["exits"]]
        scores[results["method"]].append(by_exit)
        cells = " ".join(f"{score:.3f}" for score in by_exit)
        print(f"| {run.name} | {results['splits']['test']} | {cells} |", flush=True)
    for method, rows in scores.items():
        cells = " ".join(f"{score:.4f}" for score in np.mean(rows, axis=0))
        print(f"| {method}, mean of {len(rows)} | | {cells} |")


if __name__ == "__main__":
    main()
