"""Several runs of one task: their curves in one picture, their numbers side by side."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.report import tables, tradeoff
from sweet_jax.report.files import ReportError, Run
from sweet_jax.report.style import Picture
from sweet_jax.report.tables import Number, Table
from sweet_jax.report.tradeoff import Group
from sweet_jax.system.files import FileError, read_json

_RECORD = "comparison.json"
_RECORDED = (
    "method_label", "encoder", "seed", "exit_layers", "full", "majority",
    "at_speedup", "area",
)  # fmt: skip

# What beside method and seed may tell runs apart: name, prefix in labels, value.
_IDENTITY: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("encoder", "", lambda results: results["encoder"]),
    (
        "training rows",
        "n=",
        lambda results: tables.format_plain(results["splits"]["train"]),
    ),
    (
        "exit layers",
        "exits ",
        lambda results: "/".join(map(str, results["exit_layers"])),
    ),
    (
        "faithful_release",
        "faithful_release=",
        lambda results: tables.format_plain(results["faithful_release"]),
    ),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several runs of one task.

    Attributes:
        title: heading of the page.
        notes: what a reader must know before comparing.
        picture: the curves.
        tables: numbers, a row per run and a mean per group of several seeds.
        record: the numbers for programs, the content of comparison.json.
    """

    title: str
    notes: list[str]
    picture: Picture
    tables: list[Table]
    record: dict[str, Any]


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot share a picture.

    Raises:
        ReportError: a run is given twice, the runs have different tasks or scores, or
            no criterion in common.
    """
    seen: dict[Path, Path] = {}
    for run in runs:
        if (path := run.path.resolve()) in seen:
            raise ReportError(f"{run.path} is given twice: give each run once")
        seen[path] = run.path
    first = runs[0]
    for run in runs[1:]:
        for field in ("task", "metric"):
            mine, other = first.results[field], run.results[field]
            if mine != other:
                raise ReportError(
                    f"{field} differs ({mine} in {first.path}, {other} in {run.path}):"
                    " scores of different tasks share no axis, compare them apart"
                )
    if not tradeoff.group_criteria(runs):
        raise ReportError(
            "the runs have no criterion in common: evaluate them with the same"
            " evaluate.criteria"
        )


def make_comparison(runs: Sequence[Run]) -> Comparison:
    """Compares runs that passed `check_comparable`."""
    groups = group_runs(runs)
    results = runs[0].results
    return Comparison(
        title=f"{len(runs)} runs on {results['task']}",
        notes=make_notes(runs),
        picture=tradeoff.plot_comparison(groups),
        tables=make_tables(groups),
        record={
            "schema": 1,
            "task": results["task"],
            "metric": results["metric"],
            "runs": [_record_run(run, group) for group in groups for run in group.runs],
        },
    )


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Returns the runs in groups that differ by their seed alone.

    A group is named by its method and by whatever sets it apart from the others: the
    encoder, the exits, the training rows or any other setting.
    """
    varying = [identity for identity in _IDENTITY if _varies(runs, identity[2])]
    named: dict[str, list[Run]] = {}
    for run in runs:
        parts = [f"{prefix}{value(run.results)}" for _, prefix, value in varying]
        label = ", ".join([run.results["method_label"], *parts])
        named.setdefault(label, []).append(run)
    groups: dict[str, list[Run]] = {}
    for label, members in named.items():
        for run, remark in zip(members, _tell_apart(members), strict=True):
            groups.setdefault(label + remark, []).append(run)
    return [Group(label, tuple(members)) for label, members in groups.items()]


def choose_target(runs: Sequence[Run], output: Path | None) -> Path:
    """Returns the directory for a comparison, one that nothing else lives in.

    Args:
        runs: what is compared.
        output: the user's choice; None: a name made of the task and the runs' paths.

    Raises:
        ReportError: the directory holds something else than a comparison of the very
            same runs.
    """
    paths = _paths(runs)
    if output is None:
        digest = hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest()[:8]
        task = re.sub(r"[^\w.-]+", "_", runs[0].results["task"])
        output = Path("runs") / f"comparison-{task}-{digest}"
    if not output.exists():
        return output
    if not output.is_dir():
        raise ReportError(f"--output={output} is a file: give a directory")
    record = output / _RECORD
    if record.exists():
        try:
            known = [run["path"] for run in read_json(record)["runs"]]
        except (FileError, KeyError, TypeError):
            known = []
        if sorted(known) == sorted(paths):
            return output
        raise ReportError(
            f"--output={output} already holds a comparison of other runs: choose"
            " another directory or delete it"
        )
    if any(output.iterdir()):
        raise ReportError(
            f"--output={output} holds other files: choose a new or an empty directory"
        )
    return output


def format_comparison(comparison: Comparison) -> str:
    """Returns the comparison for the terminal, at most 100 columns wide."""
    lines = [comparison.title]
    for note in comparison.notes:
        lines += tables.wrap(f"note: {note}")
    for table in comparison.tables:
        lines += ["", *tables.wrap(table.caption), *tables.format_table(table)]
    return "\n".join(lines)


def _tell_apart(runs: Sequence[Run]) -> list[str]:
    """Returns what to add to each run's label: the settings that differ, seed aside.

    Runs that only seem to be seeds of one another must not be averaged.
    """
    settings = [
        {name: value for name, value in run.settings.items() if name != "seed"}
        for run in runs
    ]
    names = sorted(set().union(*settings))
    differing = [
        name for name in names if len({str(each.get(name)) for each in settings}) > 1
    ]
    remarks = [
        "".join(f", {name}={tables.format_plain(each.get(name))}" for name in differing)
        for each in settings
    ]
    seeds = [run.results["seed"] for run in runs]
    known = list(zip(remarks, seeds, strict=True))
    return [
        # The same seed twice under the same settings: the directories' names remain.
        remark if known.count((remark, seed)) == 1 else f"{remark}, {run.path.name}"
        for remark, seed, run in zip(remarks, seeds, runs, strict=True)
    ]


def _varies(runs: Sequence[Run], value: Callable[[dict[str, Any]], str]) -> bool:
    return len({value(run.results) for run in runs}) > 1


def make_notes(runs: Sequence[Run]) -> list[str]:
    """Returns what a reader must know before comparing the runs."""
    results = runs[0].results
    notes = [f"majority class {tables.format_number(results['majority'])}"]
    notes += [
        f"the runs differ in {name}" for name, _, value in _IDENTITY
        if _varies(runs, value)
    ]  # fmt: skip
    if _varies(runs, lambda results: str(results["splits"]["test"])):
        notes.append(
            "the runs were measured on different numbers of test rows: their scores"
            " are not strictly comparable"
        )
    formulas = {
        run.results["method_label"]: run.results["cost_formula"] for run in runs
    }
    return notes + [
        f"cost of {label}: {formula}" for label, formula in formulas.items()
    ]


def make_tables(groups: Sequence[Group]) -> list[Table]:
    """Returns the exits' scores, then speed-ups and area, criteria alike together."""
    runs = [run for group in groups for run in group.runs]
    num_exits = max(run.num_exits for run in runs)
    name = tables.start_with_metric(runs[0].results)
    exits = _table_of(
        groups,
        f"{name} of every exit alone, and at full depth",
        [*(f"exit {i}" for i in range(num_exits)), "full"],
        lambda run: [
            *_padded([row["score"] for row in run.results["exits"]], num_exits),
            run.results["full"],
        ],
    )
    # Criteria that choose alike, as three do with two classes, share a table.
    alike: dict[Table, list[str]] = {}
    for criterion in itertools.chain.from_iterable(tradeoff.group_criteria(runs)):
        alike.setdefault(_make_speedup_table(groups, criterion), []).append(criterion)
    return [exits] + [
        dataclasses.replace(
            table,
            caption=f"{name} at speed-ups, and area: {', '.join(names)}; thresholds of"
            " calibration rows",
        )
        for table, names in alike.items()
    ]


def _make_speedup_table(groups: Sequence[Group], criterion: str) -> Table:
    """Returns the table of one criterion, its caption left to the caller."""
    targets = sorted(
        {
            point["target"]
            for group in groups
            for run in group.runs
            for point in run.results["at_speedup"][criterion]
        }
    )
    return _table_of(
        groups,
        "",
        [*(f"{target:g}x" for target in targets), "area"],
        lambda run: [
            *_scores_at(run, criterion, targets),
            run.results["area"][criterion],
        ],
    )


def _table_of(
    groups: Sequence[Group],
    caption: str,
    columns: Sequence[str],
    values_of: Callable[[Run], Sequence[Number]],
) -> Table:
    """Returns a row of values per run, and `mean +- sd` per group of several."""
    rows: list[tuple[str, ...]] = []
    strong: set[int] = set()
    for group in groups:
        values = [values_of(run) for run in group.runs]
        for run, numbers in zip(group.runs, values, strict=True):
            cells = map(tables.format_number, numbers)
            rows.append((group.label, str(run.results["seed"]), *cells))
        if len(values) > 1:
            strong.add(len(rows))
            cells = map(_format_mean, zip(*values, strict=True))
            rows.append((group.label, f"mean of {len(values)}", *cells))
    header = ("method", "seed", *columns)
    return Table(caption, header, tuple(rows), 2, frozenset(strong))


def _format_mean(values: Sequence[Number]) -> str:
    """Returns the mean and the sample standard deviation; "-" if any is missing."""
    known = [value for value in values if value is not None and tables.is_number(value)]
    if len(known) < len(values):
        return "-"
    return f"{np.mean(known):.3f} ±{np.std(known, ddof=1):.3f}"


def _scores_at(
    run: Run, criterion: str, targets: Sequence[float | int]
) -> list[Number]:
    scores = {p["target"]: p["score"] for p in run.results["at_speedup"][criterion]}
    return [scores.get(target) for target in targets]


def _padded(values: list[Number], length: int) -> list[Number]:
    return values + [None] * (length - len(values))


def _paths(runs: Sequence[Run]) -> list[str]:
    return [str(run.path.resolve()) for run in runs]


def _record_run(run: Run, group: Group) -> dict[str, Any]:
    results = run.results
    return {
        "path": str(run.path.resolve()),
        "group": group.label,
        **{name: results[name] for name in _RECORDED},
        "exit_scores": [row["score"] for row in results["exits"]],
    }
