"""Promised against measured speed-up of real early exit (`inference.benchmark`)."""

from pathlib import Path

import numpy as np

import sweet_jax
from sweet_jax.inference.benchmark import format_speedups, measure_speedups
from sweet_jax.transfer import load_rows


def measure_serving(model: Path, data: str, most_rows: int) -> None:
    """Prints the speed-ups of a trained model on its kind of data.

    Args:
        model: WORKDIR/model of a run.
        data: a file or a task, as `sweet_jax.evaluate` takes it.
        most_rows: rows that are timed.
    """
    classifier = sweet_jax.load(model)
    examples = load_rows(data, (), "label", classifier.label_names)
    examples = examples.select(np.arange(min(most_rows, len(examples.labels))))
    for line in format_speedups(measure_speedups(classifier, examples)):
        print(line, flush=True)
