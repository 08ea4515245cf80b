"""Tables of a run's results: rows of text, and their form on a terminal."""

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from typing import Any, TypeAlias

WIDTH = 100  # columns of the terminal summary
UNREACHABLE = "unreachable"
METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
}

Number: TypeAlias = float | int | None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of ready-made texts.

    Attributes:
        caption: what the table shows, one line.
        header: column names.
        rows: cells; as many in each row as in the header.
        num_text_columns: leading columns that hold names, not numbers.
        strong_rows: positions of rows that summarise others.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text_columns: int = 1
    strong_rows: frozenset[int] = frozenset()


def is_number(value: Number) -> bool:
    """Returns whether a result is there: unreachable points are null or NaN."""
    return value is not None and math.isfinite(value)


def format_number(value: Number, digits: int = 3) -> str:
    """Returns the number with fixed digits, "-" where there is none."""
    return f"{value:.{digits}f}" if is_number(value) else "-"


def format_speedup(cost_fraction: Number) -> str:
    """Returns 1 / cost fraction as `2.00x`."""
    return f"{1 / cost_fraction:.2f}x" if cost_fraction else "-"


def format_plain(value: Any) -> str:
    """Returns a JSON value as a person writes it: `train 2,000, test 1,530`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(format_plain(part) for part in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def metric_name(results: dict[str, Any]) -> str:
    """Returns the name of the run's score as shown to people."""
    metric = results["metric"]
    if metric in METRIC_NAMES:
        return METRIC_NAMES[metric]
    return metric


def start_with_metric(results: dict[str, Any]) -> str:
    """Returns the name of the score as the first words of a sentence."""
    name = metric_name(results)
    return name[:1].upper() + name[1:]  # `capitalize` makes "Macro f1" of "macro F1".


def list_extra_tests(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns, per further test set, the results with its measures for the test's."""
    return {
        name: {**results, **measures}
        for name, measures in results["extra_tests"].items()
    }


def make_exit_table(results: dict[str, Any]) -> Table:
    """Returns a row per exit, each measured alone on every test example."""
    header = ["exit", "layer", metric_name(results), "accuracy", "NLL"]
    header += ["ECE before", "ECE after", "T", "cost", "speed-up"]
    rows = [
        [
            str(row["exit"]),
            str(row["layer"]),
            *(format_number(row[name]) for name in ("score", "accuracy", "nll")),
            format_number(row["ece_before"]),
            format_number(row["ece_after"]),
            format_number(row["temperature"], 2),
            format_number(row["cost_fraction"]),
            format_speedup(row["cost_fraction"]),
        ]
        for row in results["exits"]
    ]
    if results["metric"] == "accuracy":
        # The score is the accuracy already.
        for cells in (header, *rows):
            del cells[3]
    return Table(
        "Every exit alone, on all test examples",
        tuple(header),
        tuple(map(tuple, rows)),
        num_text_columns=0,
    )


def make_class_table(results: dict[str, Any]) -> Table:
    """Returns a row per class, at the last exit and its F1 at every other; or none.

    Results of kept studies lack them.
    """
    exits = [f"F1, exit {row['exit']}" for row in results["exits"][:-1]]
    header = ("class", "examples", "precision", "recall", "F1", *exits)
    if "classes" not in results:
        return Table("", header, ())
    names = results["label_names"]
    rows = [
        (
            names[row["class"]],
            format_plain(round(row["examples"])),
            *(format_number(row[name][-1]) for name in ("precision", "recall", "f1")),
            *map(format_number, row["f1"][:-1]),
        )
        for row in results["classes"]
    ]
    caption = "Every class: all test examples answered by the last exit, and F1 of the"
    return Table(f"{caption} exits before it", header, tuple(rows))


def make_cost_table(results: dict[str, Any]) -> Table:
    """Returns what leaving at each exit costs, counted in three ways; no rows without.

    Results of kept studies lack them.
    """
    header = ["exit", "layer", "layers", "FLOPs", "seconds"]
    if "costs" not in results or results["costs"] is None:
        return Table("", tuple(header), ())
    costs = results["costs"]
    lengths = [f"{row['length']} tokens" for row in costs["segments"]]
    rows = [
        (
            str(row["exit"]),
            str(row["layer"]),
            *(
                format_number(value)
                for value in (
                    row["cost_fraction"],
                    costs["flops"][i],
                    costs["seconds"][i],
                )
            ),
            *(
                format_number(segment["milliseconds"][i], 2)
                for segment in costs["segments"]
            ),
        )
        for i, row in enumerate(results["exits"])
    ]
    return Table(
        "Cost of leaving at each exit, relative to the full model, in layers (the"
        " paper's), in FLOPs (XLA's analysis; embeddings and exits included) and in"
        f" measured seconds; beside it milliseconds of its segment for {costs['rows']}"
        f" rows of the usual lengths on {costs['device']}",
        (*header, *lengths),
        tuple(rows),
        num_text_columns=0,
    )


def make_speedup_matrix(results: dict[str, Any]) -> Table:
    """Returns a row per criterion: its area and `score @ cost` at each speed-up."""
    targets = _targets(results)
    rows = []
    for criterion, points in results["at_speedup"].items():
        by_target = {point["target"]: point for point in points}
        cells = (
            f"{format_number(point['score'])} @ {format_number(point['cost_fraction'])}"
            if is_number(point["score"])
            else UNREACHABLE
            for point in (by_target[target] for target in targets)
        )
        rows.append((criterion, format_number(results["area"][criterion]), *cells))
    return Table(
        f"{start_with_metric(results)} @ realised cost at each speed-up,"
        " threshold chosen on calibration rows",
        ("criterion", "area", *(f"{target:g}x" for target in targets)),
        tuple(rows),
    )


def make_speedup_table(results: dict[str, Any]) -> Table:
    """Returns a row per criterion and speed-up, the value chosen on test beside it."""
    rows = []
    for criterion, points in results["at_speedup"].items():
        for point in points:
            cells = ["-", UNREACHABLE, "-", "-"]
            if is_number(point["score"]):
                # JSON has no infinity: null where a score was reached is `full`.
                threshold = point["threshold"]
                cells = [
                    "full" if threshold is None else format_plain(threshold),
                    format_number(point["score"]),
                    format_number(point["cost_fraction"]),
                    format_speedup(point["cost_fraction"]),
                ]
            oracle = format_number(point["oracle"])
            rows.append((criterion, f"{point['target']:g}x", *cells, oracle))
    return Table(
        "Score at a wanted speed-up: the threshold is chosen on calibration rows,"
        " score and cost are measured on all test examples",
        (
            "criterion",
            "wanted",
            "threshold",
            metric_name(results),
            "cost",
            "speed-up",
            "oracle (chosen on test)",
        ),
        tuple(rows),
    )


def make_extra_tests_table(results: dict[str, Any]) -> Table:
    """Returns a row per further test set: its exits, and speed-ups by one criterion.

    The criterion is the first one that was swept.
    """
    criterion = next(iter(results["at_speedup"]))
    exits = [f"exit {row['exit']}" for row in results["exits"]]
    targets = [f"{target:g}x" for target in _targets(results)]
    rows = []
    for name, test in list_extra_tests(results).items():
        measured = (*test["exits"], *test["at_speedup"][criterion])
        rows.append((name, *(format_number(row["score"]) for row in measured)))
    return Table(
        f"{start_with_metric(results)} on further test sets: every exit alone,"
        f" and at speed-ups by {criterion}",
        ("test set", *exits, *targets),
        tuple(rows),
    )


def make_grid_table(results: dict[str, Any], criterion: str) -> Table:
    """Returns a row per threshold of the criterion's grid."""
    exits = [f"exit {row['exit']}" for row in results["exits"]]
    rows = tuple(
        (
            format_plain(point["threshold"]),
            format_number(point["score"]),
            format_number(point["cost_fraction"]),
            format_speedup(point["cost_fraction"]),
            *map(format_plain, point["exit_counts"]),
        )
        for point in results["curves"][criterion]
    )
    header = ("threshold", metric_name(results), "cost", "speed-up", *exits)
    caption = f"Threshold grid of {criterion}: examples leaving at each exit"
    if criterion == "patience":
        caption += "; t exits in a row agree, which is PABEE's patience t - 1"
    return Table(caption, header, rows, num_text_columns=0)


def format_table(table: Table, width: int = WIDTH) -> list[str]:
    """Returns the table's lines without its caption.

    A table that is too wide goes on below, its naming columns repeated.
    """
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    names = list(range(table.num_text_columns))
    blocks, used = [list(names)], sum(widths[i] + 2 for i in names)
    taken = used
    for i in range(table.num_text_columns, len(columns)):
        if taken + widths[i] > width and blocks[-1] != names:
            blocks.append(list(names))
            taken = used
        blocks[-1].append(i)
        taken += widths[i] + 2
    lines = []
    for block in blocks:
        for cells in (table.header, *table.rows):
            texts = (
                cells[i].ljust(widths[i]) if i in names else cells[i].rjust(widths[i])
                for i in block
            )
            lines.append("  ".join(texts).rstrip())
        lines.append("")
    return lines[:-1]


def format_markdown(table: Table) -> str:
    """Returns the table in Markdown, its caption above it."""

    def line(cells: Sequence[str]) -> str:
        # A bar would end the cell, a line break the row.
        texts = (" ".join(cell.split()).replace("|", r"\|") for cell in cells)
        return f"| {' | '.join(texts)} |"

    marks = [
        ":---" if i < table.num_text_columns else "---:"
        for i in range(len(table.header))
    ]
    rows = [line(row) for row in table.rows]
    return "\n".join([table.caption, "", line(table.header), line(marks), *rows])


def format_summary(results: dict[str, Any]) -> str:
    """Returns the summary of a run for the terminal, at most 100 columns wide.

    Args:
        results: results.json of schema 1.
    """
    score = metric_name(results)
    title = (
        f"{results['task']} | {results['encoder']} | {results['method_label']}"
        f" | seed {results['seed']}"
    )
    splits = f"rows: {format_plain(results['splits'])} | score: {score}"
    matrix = make_speedup_matrix(results)
    oracle = results["oracle_exit"]
    lines = [*wrap(title), *wrap(splits)]
    if results["faithful_release"]:
        lines += [
            "faithful_release: reproduces the released code, defects included; what"
            " differs is in docs/released-code.md"
        ]
    lines += ["", *format_table(make_exit_table(results))]
    lines += ["", *wrap(matrix.caption), *format_table(matrix), ""]
    extra = make_extra_tests_table(results)
    if extra.rows:
        lines += [*wrap(extra.caption), *format_table(extra), ""]
    lines += wrap(
        f"full depth {format_number(results['full'])}"
        f" | majority class {format_number(results['majority'])}"
        f" | oracle exit {format_number(oracle['score'])}"
        f" @ {format_number(oracle['cost_fraction'])}"
    )
    lines += wrap(f"cost: {results['cost_formula']}", "      ")
    for note in results["notes"]:
        lines += wrap(f"note: {note}", "      ")
    return "\n".join(lines)


def _targets(results: dict[str, Any]) -> list[float | int]:
    """Returns the wanted speed-ups, the same for every criterion."""
    for points in results["at_speedup"].values():
        return [point["target"] for point in points]
    return []


def wrap(text: str, indent: str = "  ") -> list[str]:
    """Returns the text in lines of the terminal's width."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent)
