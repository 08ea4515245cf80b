"""Aggregates the runs of `benchmarks.few_data` into Markdown.

    python -m benchmarks.few_data_table few_data/runs.jsonl

Of all runs: the score at every exit. Of development runs, too: the mean exit score of
every recipe, by which recipes are chosen (docs/few-data-protocol.md). Of test runs: the
difference from SetFit and from the linear model of the same layer's frozen states, too.
Intervals of a task are for new seeds and new test rows; those over tasks are for new
tasks.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.few_data import SETFIT, read_runs, unpack
from benchmarks.measuring import print_header, print_row
from sweet_jax.evaluation.statistics import (
    Interval,
    RowDraws,
    student_interval,
    two_level_interval,
)

Run = dict[str, Any]
# A mean difference and its interval, None of a single seed or task.
Difference = tuple[float, Interval | None]
_NUM_DRAWS = 2000


def group(runs: Iterable[Run], *fields: str) -> dict[tuple[Any, ...], list[Run]]:
    """Returns the runs by the values of these fields, in the order of the runs."""
    groups = defaultdict(list)
    for run in runs:
        groups[tuple(run[field] for field in fields)].append(run)
    return dict(groups)


def average_over_tasks(
    runs: list[Run], compute: Callable[[Run], np.ndarray]
) -> np.ndarray:
    """Returns the mean over tasks and sizes of the mean over seeds."""
    cells = group(runs, "task", "size").values()
    return np.mean(
        [np.mean([compute(run) for run in cell], axis=0) for cell in cells], 0
    )


def print_development(runs: list[Run]) -> None:
    """Prints a row per method and recipe, best first within a method.

    Rows of a method can be compared if they are of the same tasks, sizes and seeds;
    `print_recipe_pairs` compares what both have run.
    """
    print_header(
        "method", "recipe", "runs", "part 0", "part 1", "exits, part 0", "seconds"
    )
    rows = []
    for (method, recipe), mine in group(runs, "method", "recipe").items():
        exits = average_over_tasks(mine, lambda run: np.array(run["scores_part0"]))
        other = average_over_tasks(mine, lambda run: np.array(run["scores_part1"]))
        seconds = np.mean([run["seconds"] for run in mine])
        rows.append((method, -exits.mean(), recipe, len(mine), exits, other, seconds))
    for method, _, recipe, count, exits, other, seconds in sorted(
        rows, key=lambda row: row[:3]
    ):
        cells = " ".join(f"{score:.3f}" for score in exits)
        means = f"{exits.mean():.4f}", f"{other.mean():.4f}"
        print_row(method, recipe, count, *means, cells, f"{seconds:.0f}")


def print_recipe_pairs(runs: list[Run]) -> None:
    """Prints for each pair of recipes their means on part 0 over what both have run."""
    print_header("recipe", "other recipe", "runs of each", "mean", "other mean", "gain")
    cells = {
        recipe: {
            (r["task"], r["size"], r["seed"], r["method"]): np.mean(r["scores_part0"])
            for r in mine
        }
        for (recipe,), mine in group(runs, "recipe").items()
    }
    for one, other in itertools.combinations(cells, 2):
        if common := cells[one].keys() & cells[other].keys():
            means = [np.mean([cells[r][cell] for cell in common]) for r in (one, other)]
            gain = f"{means[1] - means[0]:+.4f}"
            print_row(one, other, len(common), *(f"{m:.4f}" for m in means), gain)


def print_scores(runs: list[Run]) -> None:
    """Prints the score at every exit: a row per task, size, method and recipe."""
    print_header(
        "task", "classes", "size", "method", "recipe", "seeds", "exits", "seconds"
    )
    for (task, size, method, recipe), mine in group(
        runs, "task", "size", "method", "recipe"
    ).items():
        scores = np.mean([run["scores"] for run in mine], axis=0)
        cells = " ".join(f"{score:.3f}" for score in scores)
        seconds = f"{np.mean([run['seconds'] for run in mine]):.0f}"
        classes = mine[0]["num_classes"]
        print_row(task, classes, size, method, recipe, len(mine), cells, seconds)
    measured = [run for run in runs if run.get("baselines")]
    for (task, size), mine in group(measured, "task", "size").items():
        by_seed = {run["seed"]: run["baselines"] for run in mine}.values()
        frozen = np.mean(
            [[x["score"] for x in row["frozen"]] for row in by_seed], axis=0
        )
        tfidf = np.mean([row["tfidf"]["score"] for row in by_seed])
        cells = " ".join(f"{score:.3f}" for score in frozen)
        classes = mine[0]["num_classes"]
        print_row(task, classes, size, "frozen + linear", "", len(by_seed), cells, "")
        cells = f"{tfidf:.3f}"
        print_row(task, classes, size, "tf-idf + linear", "", len(by_seed), cells, "")


def compare(ours: list[Run], others: list[Run]) -> list[Difference]:
    """Returns ours minus the other's full depth, at each of our exits.

    Args:
        ours: runs of a task, size, method and recipe, one per seed.
        others: the other's runs with the same seeds and rows.
    """
    last = {run["seed"]: run["correct"][-1] for run in others}
    mine = [run for run in ours if run["seed"] in last]
    differences_SEN = np.array(
        [
            [
                unpack(exit).astype(float) - unpack(last[run["seed"]])
                for exit in run["correct"]
            ]
            for run in mine
        ]
    )
    num_rows = mine[0]["num_test_rows"]  # `pack` adds up to seven.
    differences_SEN = differences_SEN[:, :, :num_rows]
    draws = RowDraws.make(num_rows, np.random.default_rng(0), _NUM_DRAWS)
    return [
        (
            float(difference_SN.mean()),
            two_level_interval(
                difference_SN.mean(axis=1), draws.sum(difference_SN.T) / num_rows
            ),
        )
        for difference_SN in differences_SEN.swapaxes(0, 1)
    ]


def print_differences(runs: list[Run]) -> None:
    """Prints ours minus SetFit at full depth, by exit, and the mean over tasks."""
    others = group([r for r in runs if r["method"] == SETFIT], "task", "size", "recipe")
    ours = group([r for r in runs if r["method"] != SETFIT], "method", "recipe")
    print_header(
        "method", "recipe", "SetFit's steps", "task", "size", "by exit, points"
    )
    for (method, recipe), mine in ours.items():
        # SetFit's steps -> task -> one row per size, by exit.
        found: dict[str, dict[str, list[list[float]]]] = {}
        for (task, size, steps), theirs in others.items():
            cell = [r for r in mine if (r["task"], r["size"]) == (task, size)]
            if {r["seed"] for r in cell} & {r["seed"] for r in theirs}:
                exits = compare(cell, theirs)
                means = found.setdefault(steps, {}).setdefault(task, [])
                means.append([mean for mean, _ in exits])
                print_row(method, recipe, steps, task, size, _show(exits))
        for steps, tasks in found.items():
            cells = [row for rows in tasks.values() for row in rows]
            by_task = [np.mean(rows, axis=0) for rows in tasks.values()]
            for what, values in (("cells", cells), ("tasks", by_task)):
                name = f"mean of {len(values)} {what}"
                print_row(method, recipe, steps, name, "", _show(_average(values)))


def _average(values: Iterable[Sequence[float] | np.ndarray]) -> list[Difference]:
    """Returns the mean and Student's interval of each column."""
    return [(float(x.mean()), student_interval(x)) for x in np.array([*values]).T]


def print_against_frozen(runs: list[Run]) -> None:
    """Prints ours minus the linear model of the same layer's frozen states."""
    print_header("method", "recipe", "task", "size", "seeds", "by exit, points")
    mine = [run for run in runs if run.get("baselines")]
    for (method, recipe, task, size), cell in group(
        mine, "method", "recipe", "task", "size"
    ).items():
        differences_SE = np.array(
            [
                np.array(run["scores"])
                - [row["score"] for row in run["baselines"]["frozen"]]
                for run in cell
            ]
        )
        exits = _show(_average(differences_SE))
        print_row(method, recipe, task, size, len(cell), exits)


def _show(exits: list[Difference]) -> str:
    """Returns differences in points, each with its interval where it has one."""
    texts = []
    for mean, interval in exits:
        text = f"{100 * mean:+.1f}"
        if interval is not None:
            text += f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        texts.append(text)
    return ", ".join(texts)


def main() -> None:
    """Prints all tables for which there are runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="runs.jsonl")
    runs = [run for path in parser.parse_args().runs for run in read_runs(path)]
    by_score = group(runs, "score")
    if development := by_score.get(("development",)):
        ours = [run for run in development if run["method"] != SETFIT]
        print_development(ours)
        print()
        print_recipe_pairs(ours)
        print()
        print_scores(development)
    if test := by_score.get(("test",)):
        for print_table in (print_scores, print_differences, print_against_frozen):
            print()
            print_table(test)


if __name__ == "__main__":
    main()
