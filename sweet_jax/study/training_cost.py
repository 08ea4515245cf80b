"""The training cost of each method (seconds, FLOPs, memory), relative to sweet."""

from collections.abc import Sequence
from typing import Any

from sweet_jax.study.folder import FinishedCell

_REFERENCE = "sweet"
_MEASURES = ("seconds", "flops", "peak_memory_bytes", "parameters")


def measure_training(cell: FinishedCell) -> dict[str, float | None]:
    """Returns the measures of training a cell, None for unknown ones."""
    results, memory = cell.results, cell.peak_memory_bytes
    seconds = results["seconds"]
    return {
        # Probes are part of the training that they start; kept studies have none.
        "seconds": seconds["train"] + seconds.get("probe", 0.0) or None,
        # 0 means that the backend does not count.
        "flops": results["training_flops"] or None,
        "peak_memory_bytes": None if memory is None else float(memory),
        "parameters": float(results["parameters"]),
    }


def describe_training(cells: Sequence[FinishedCell]) -> dict[str, Any]:
    """Returns the mean over seeds of each measure, None if a seed lacks it.

    Returns:
        `seconds` of training, probes of its start included, `flops` counted by the
        compiler, `peak_memory_bytes` of the process, `parameters` of all models that
        are served together.
    """
    measured = [measure_training(cell) for cell in cells]
    described: dict[str, Any] = {}
    for name in _MEASURES:
        known = [value for row in measured if (value := row[name]) is not None]
        whole = len(known) == len(measured)
        described[name] = round(sum(known) / len(known), 2) if whole else None
    return described


def add_ratios(methods: Sequence[dict[str, Any]]) -> None:
    """Adds `over_sweet` to the training of each method: its measures / sweet's."""
    reference: dict[str, Any] = dict.fromkeys(_MEASURES)
    for method in methods:
        if method["label"] == _REFERENCE:
            reference = method["training"]
    for method in methods:
        training = method["training"]
        training["over_sweet"] = {
            name: round(training[name] / reference[name], 4)
            if training[name] and reference[name]
            else None
            for name in _MEASURES
        }
