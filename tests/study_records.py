"""Records of studies, to be changed by tests of their report."""

import copy
from typing import Any


def make_rates(encoder: float, exits: float | None = None) -> dict[str, Any]:
    """Returns learning rates as plan.json has them."""
    return {"encoder_learning_rate": encoder, "exit_learning_rate": exits}


def make_view(record: dict[str, Any], is_average: bool = False) -> dict[str, Any]:
    """Leaves the first task, or average, alone in a record, and returns it."""
    group = record["groups"][0]
    record["groups"] = [group]
    record["failed"], record["missing"] = [], []
    if is_average:
        return group["average"]
    group["average"] = None
    group["settings"] = group["settings"][:1]
    return group["settings"][0]


def add_size(record: dict[str, Any], train_size: int) -> None:
    """Adds the first group again with another number of training examples."""
    group = copy.deepcopy(record["groups"][0]) | {"train_size": train_size}
    record["groups"].append(group)


def set_row(row: dict[str, Any], mean: float, interval: Any, verdict: str) -> None:
    """Sets the difference, the interval and the verdict of a comparison or point."""
    row |= {"mean": mean, "over_seeds_and_rows": interval, "verdict": verdict}
