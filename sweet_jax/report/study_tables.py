"""The tables of a study: exits, differences, cascades, claims, sizes, cost, cells."""

from collections.abc import Iterator, Sequence
from typing import Any

from sweet_jax.report import tables
from sweet_jax.report.study_record import View, list_headlines, list_views
from sweet_jax.report.study_words import (
    describe_claim,
    describe_which,
    format_interval,
    format_points,
    show_verdict,
)
from sweet_jax.report.tables import Table, format_number, format_plain

_NO_NUMBER = "-"


def make_exit_table(view: View) -> Table:
    """Returns a row per method: every exit alone, and their mean."""
    exits = [f"exit {i} (layer {layer})" for i, layer in _exits(view)]
    rows = [
        (
            method["label"],
            *_tell_tasks(view.is_partial, method["tasks"]),
            format_plain(method["seeds"]),
            *(format_mean(row["score"]) for row in method["exits"]),
            format_mean(method["mean_exit"]),
        )
        for method in view.methods
    ]
    head = ("method", *_tasks_heading(view.is_partial), "seeds")
    return Table(
        f"{_title(view)}: {view.metric} of every exit alone on all test examples, mean"
        f" over seeds ± half of its {view.level} interval (Student)",
        (*head, *exits, "mean"),
        tuple(rows),
        num_text_columns=len(head),
    )


def make_difference_table(view: View) -> Table:
    """Returns a row per pair of methods: paired differences at every exit."""
    rows = [
        (
            f"{pair['of']} - {pair['minus']}",
            *_tell_tasks(view.is_partial, pair["tasks"]),
            format_plain(pair["seeds"]),
            *(format_difference(row) for row in pair["exits"]),
            format_difference(pair["mean_exit"]),
        )
        for pair in view.content["differences"]
    ]
    head = ("difference", *_tasks_heading(view.is_partial), "seeds")
    return Table(
        f"{_title(view)}: paired differences in points, with the {view.level}"
        " interval over seeds and test examples",
        (*head, *(f"exit {i}" for i, _ in _exits(view)), "mean"),
        tuple(rows),
        num_text_columns=len(head),
    )


def make_cascade_table(view: View) -> Table:
    """Returns a row per method: area, and score at the cost of each speed-up."""
    c = view.criterion
    rows = [
        (
            method["label"],
            *_tell_tasks(view.is_partial, method["tasks"]),
            format_mean(method["area"][c]),
            *(_format_reached(point["score"]) for point in method["at_cost"][c]),
        )
        for method in view.methods
    ]
    head = ("method", *_tasks_heading(view.is_partial))
    return Table(
        f"{_title(view)}: cascades by {c}; area under the curve, and {view.metric} at"
        " each speed-up's cost on the test examples, thresholds set by that cost alone",
        (*head, "area", *(f"{target:g}x" for target in _targets(view))),
        tuple(rows),
        num_text_columns=len(head),
    )


def make_cascade_difference_table(view: View) -> Table:
    """Returns a row per pair of methods: differences of area and at equal cost."""
    c = view.criterion
    rows = [
        (
            f"{pair['of']} - {pair['minus']}",
            *_tell_tasks(view.is_partial, pair["tasks"]),
            format_difference(pair["area"][c]),
            *(format_difference(point["score"]) for point in pair["at_cost"][c]),
        )
        for pair in view.content["differences"]
    ]
    head = ("difference", *_tasks_heading(view.is_partial))
    return Table(
        f"{_title(view)}: paired differences of cascades at equal cost in points, with"
        f" the {view.level} interval over seeds and test examples",
        (*head, "area", *(f"{target:g}x" for target in _targets(view))),
        tuple(rows),
        num_text_columns=len(head),
    )


def make_budget_table(view: View) -> Table:
    """Returns a row per method: score @ cost under thresholds chosen beforehand."""
    c = view.criterion
    rows = [
        (
            method["label"],
            *_tell_tasks(view.is_partial, method["tasks"]),
            *(_format_speedup(point) for point in method["at_speedup"][c]),
        )
        for method in view.methods
    ]
    head = ("method", *_tasks_heading(view.is_partial))
    return Table(
        f"{_title(view)}: cascades by {c} in use; {view.metric} @ realised cost,"
        " thresholds chosen on calibration rows",
        (*head, *(f"{target:g}x" for target in _targets(view))),
        tuple(rows),
        num_text_columns=len(head),
    )


def make_area_table(view: View) -> Table:
    """Returns a row per method: the area by every criterion."""
    criteria = view.content["criteria"]
    rows = [
        (
            method["label"],
            *_tell_tasks(view.is_partial, method["tasks"]),
            *(format_mean(method["area"][c]) for c in criteria),
        )
        for method in view.methods
    ]
    head = ("method", *_tasks_heading(view.is_partial))
    caption = f"{_title(view)}: area under the curve by exit criterion"
    return Table(caption, (*head, *criteria), tuple(rows), num_text_columns=len(head))


def make_claim_table(view: View, record: dict[str, Any]) -> Table:
    """Returns a row per exit or speed-up of a claim, and per mean, with intervals."""
    rows = []
    for finding in view.content["findings"]:
        claim = describe_claim(finding, record)
        compared = finding["comparisons"]
        for row in (part for whole in compared for part in (*whole["points"], whole)):
            rows.append(
                (
                    claim,
                    f"{row['of']} - {row['minus']}",
                    describe_which(row),
                    *_tell_tasks(
                        view.is_partial, view.find_tasks(row["of"], row["minus"])
                    ),
                    show_verdict(row["verdict"]),
                    format_plain(row["seeds"]),
                    format_points(row["mean"]),
                    format_interval(row["over_seeds"]),
                    format_interval(row["over_seeds_and_rows"]),
                )
            )
            claim = ""
    head = (
        "claim",
        "difference",
        "at",
        *_tasks_heading(view.is_partial),
        "verdict",
        "seeds",
    )
    return Table(
        f"{_title(view)}: comparisons behind the claims, in points",
        (*head, "mean", "over seeds", "over seeds and examples"),
        tuple(rows),
        num_text_columns=len(head),
    )


def make_training_table(view: View) -> Table:
    """Returns a row per method: what training took, and that over sweet's."""
    # Per measure: its heading and what makes a unit of it.
    measures = {
        "seconds": ("seconds", 1.0, ",.0f"),
        "flops": ("TFLOP", 1e12, ",.3g"),
        "peak_memory_bytes": ("peak memory, MB", 1e6, ",.0f"),
        "parameters": ("parameters, M", 1e6, ",.3g"),
    }
    rows = []
    for method in view.methods:
        training = method["training"]
        cells = []
        for name, (_, unit, shape) in measures.items():
            value, ratio = training[name], training["over_sweet"][name]
            text = _NO_NUMBER if value is None else format(value / unit, shape)
            cells.append(text if ratio is None else f"{text} ({ratio:.2f})")
        rows.append((method["label"], *cells))
    return Table(
        f"{_title(view)}: training, mean over seeds (in parentheses over sweet's)",
        ("method", *(heading for heading, _, _ in measures.values())),
        tuple(rows),
    )


def make_size_tables(record: dict[str, Any]) -> list[Table]:
    """Returns per encoder and task, or average, a row per method and training size."""
    return [
        _make_size_table(encoder, subject, views)
        for (encoder, subject), views in group_by_size(record).items()
    ]


def _make_size_table(encoder: str, subject: str, views: Sequence[View]) -> Table:
    first = views[0]
    is_partial = any(view.is_partial for view in views)
    head = ("method", *_tasks_heading(is_partial), "training examples")
    return Table(
        f"{subject}, {encoder}: {first.metric} against training examples, mean over"
        f" seeds ± half of its {first.level} interval",
        (
            *head,
            *(f"exit {i}" for i, _ in _exits(first)),
            "mean",
            f"area ({first.criterion})",
        ),
        tuple(_size_rows(views, is_partial)),
        num_text_columns=len(head) - 1,
    )


def group_by_size(record: dict[str, Any]) -> dict[tuple[str, str], list[View]]:
    """Returns the views that differ by training size alone, by encoder and subject.

    Only of what has several sizes; sizes rise.
    """
    grouped: dict[tuple[str, str], list[View]] = {}
    for view in list_views(record):
        grouped.setdefault((view.encoder, view.subject), []).append(view)
    return {
        key: sorted(views, key=lambda view: view.train_size)
        for key, views in grouped.items()
        if len(views) > 1
        and len({str(v.content["exit_layers"] + v.content["tasks"]) for v in views})
        == 1
    }


def make_choice_table(record: dict[str, Any]) -> Table | None:
    """Returns a row per choice of learning rates, None where there was no search."""
    rows = []
    for choice in record["choices"]:
        tried = ", ".join(
            f"{_format_rates(point)}: {format_number(point['score'])}"
            for point in choice["tried"]
        )
        names = [choice[n] for n in ("task", "encoder", "train_size", "method")]
        chosen = _format_rates(choice["chosen"])
        rows.append((*map(format_plain, names), tried, chosen))
    if not rows:
        return None
    return Table(
        "Learning rates, chosen by mean exit score on calibration part 0 with a seed"
        " of their own",
        ("task", "encoder", "training examples", "method", "tried", "chosen"),
        tuple(rows),
        num_text_columns=5,
    )


def make_cell_table(record: dict[str, Any]) -> Table | None:
    """Returns a row per failed or missing cell, None where there is none."""
    rows = [(row["name"], "failed", row["error"]) for row in record["failed"]]
    rows += [(name, "not yet run", "") for name in record["missing"]]
    if not rows:
        return None
    return Table(
        f"Cells that enter no average, of {record['num_planned']}",
        ("cell", "state", "error"),
        tuple(rows),
        num_text_columns=3,
    )


def list_main_tables(record: dict[str, Any]) -> Iterator[Table]:
    """Yields the tables of the terminal and of Markdown, headline by headline."""
    for view in list_headlines(record):
        yield make_exit_table(view)
        if view.content["differences"]:
            yield make_difference_table(view)
        yield make_cascade_table(view)
        if view.content["differences"]:
            yield make_cascade_difference_table(view)
        yield make_budget_table(view)
        if not view.is_average:
            yield make_training_table(view)
    yield from make_size_tables(record)
    for table in (make_choice_table(record), make_cell_table(record)):
        if table is not None:
            yield table


def format_mean(described: dict[str, Any] | None) -> str:
    """Returns `0.812 ±0.014`, without the half interval where there is one seed."""
    if described is None:
        return _NO_NUMBER
    text = format_number(described["mean"])
    if described["interval"] is None:
        return text
    low, high = described["interval"]
    return f"{text} ±{format_number((high - low) / 2)}"


def format_difference(described: dict[str, Any] | None) -> str:
    """Returns `+1.2 (-0.3 to +2.8)` in points, the interval over seeds and rows."""
    if described is None:
        return _NO_NUMBER
    text = format_points(described["mean"])
    interval = described["over_seeds_and_rows"]
    return text if interval is None else f"{text} ({format_interval(interval)})"


def _format_rates(row: dict[str, Any]) -> str:
    """Returns `0.0001`, `exits 0.001`, or `0.0001 and exits 0.001`."""
    parts = (
        (row["encoder_learning_rate"], "{:g}"),
        (row["exit_learning_rate"], "exits {:g}"),
    )
    texts = [text.format(rate) for rate, text in parts if rate is not None]
    return " and ".join(texts) or _NO_NUMBER


def _format_reached(score: dict[str, Any] | None) -> str:
    return tables.UNREACHABLE if score is None else format_mean(score)


def _format_speedup(point: dict[str, Any]) -> str:
    if point["score"] is None or point["cost_fraction"] is None:
        return tables.UNREACHABLE
    cost = format_number(point["cost_fraction"]["mean"])
    return f"{format_mean(point['score'])} @ {cost}"


def _size_rows(views: Sequence[View], is_partial: bool) -> Iterator[tuple[str, ...]]:
    labels = dict.fromkeys(m["label"] for view in views for m in view.methods)
    for label in labels:
        for view in views:
            for method in view.methods:
                if method["label"] == label:
                    yield (
                        label,
                        *_tell_tasks(is_partial, method["tasks"]),
                        f"{view.train_size:,}",
                        *(format_mean(row["score"]) for row in method["exits"]),
                        format_mean(method["mean_exit"]),
                        format_mean(method["area"][view.criterion]),
                    )


def _tasks_heading(is_partial: bool) -> tuple[str, ...]:
    return ("tasks",) if is_partial else ()


def _tell_tasks(is_partial: bool, tasks: Sequence[str]) -> tuple[str, ...]:
    """Returns a row's cell of its tasks, where not all rows are over the same."""
    return (", ".join(tasks),) if is_partial else ()


def _exits(view: View) -> list[tuple[int, int]]:
    return list(enumerate(view.content["exit_layers"]))


def _targets(view: View) -> list[float]:
    [points] = [method["at_speedup"] for method in view.methods[:1]]
    return [point["target"] for point in points[view.criterion]]


def _title(view: View) -> str:
    return view.title[0].upper() + view.title[1:] if view.is_average else view.title
