"""study.csv: the results of a study as a long table, with one number per row."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sweet_jax.study.folder import FinishedCell
from sweet_jax.study.measure import Measured
from sweet_jax.study.measured_study import MeasuredStudy
from sweet_jax.study.training_cost import measure_training
from sweet_jax.system.files import show

# The key of a row, and its number.
COLUMNS = (
    "study", "task", "encoder", "size", "method", "seed", "exit", "layer", "criterion",
    "speedup", "measure", "value",
)  # fmt: skip
_OF_EXIT = (
    "score", "accuracy", "nll", "ece_before", "ece_after", "temperature",
    "cost_fraction",
)  # fmt: skip


def make_table(measured: MeasuredStudy) -> pd.DataFrame:
    """Returns one row per cell, exit or speed-up, and measure (docs/research.md).

    Columns that do not apply to a measure are empty in its rows; so is the value if a
    run has none, such as for a speed-up that is out of reach.
    """
    rows: list[dict[str, Any]] = []
    for (encoder, size), tasks in measured.groups.items():
        for task, part in tasks.items():
            for method, found in part.cells.items():
                for seed, cell in found.items():
                    names = {
                        "study": show(measured.study.name),
                        "task": show(task),
                        "encoder": show(encoder),
                        "size": size,
                        "method": show(method),
                        "seed": seed,
                    }
                    numbers = part.samples[method][seed]
                    targets = part.setting.targets
                    rows += (names | row for row in _list_rows(cell, numbers, targets))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = dict.fromkeys(("size", "seed", "exit", "layer"), "Int64")
    return table.astype(whole | {"speedup": float, "value": float})


def _list_rows(
    cell: FinishedCell, measured: Measured, targets: tuple[float, ...]
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a cell, without the columns that identify the cell."""
    results = cell.results
    for exit_row in results["exits"]:
        place = {"exit": exit_row["exit"], "layer": exit_row["layer"]}
        for name in _OF_EXIT:
            yield place | {"measure": name, "value": exit_row[name]}
    for criterion, points in results["at_speedup"].items():
        yield {
            "criterion": criterion,
            "measure": "area",
            "value": results["area"][criterion],
        }
        at_cost_T = measured.values[f"at_cost/{criterion}"]
        for target, score, point in zip(targets, at_cost_T, points, strict=True):
            for name, value in (
                ("score_at_cost", score),
                ("score_at_speedup", point["score"]),
                ("cost_at_speedup", point["cost_fraction"]),
                ("threshold_at_speedup", point["threshold"]),
            ):
                yield {
                    "criterion": criterion,
                    "speedup": target,
                    "measure": name,
                    "value": value,
                }
    whole = {"majority": results["majority"], "full": results["full"]}
    for name, value in measure_training(cell).items():
        whole[f"training_{name}" if name in ("seconds", "flops") else name] = value
    for name, value in whole.items():
        yield {"measure": name, "value": value}
