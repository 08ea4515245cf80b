"""The pictures of a study: curves with bands, differences with intervals, sizes."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sweet_jax.report import style
from sweet_jax.report.study_record import View, list_headlines, list_views
from sweet_jax.report.study_tables import format_difference, format_mean, group_by_size
from sweet_jax.report.style import INK, MUTED, Picture

# Labelled on the axis of costs, where it reaches that far.
_COST_TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
_SPEEDUP_TICKS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 12.0, 24.0)


def plot_study(record: dict[str, Any]) -> Iterator[tuple[View, Picture]]:
    """Yields every view with its curves, then with its differences.

    The curves of the first headline are named `study`: the picture of the whole.
    """
    headlines = list_headlines(record)
    names: set[str] = set()
    for view in list_views(record):
        slug = _make_slug(view, names)
        is_first = view.title == headlines[0].title
        yield view, plot_curves(view, "study" if is_first else f"curves-{slug}")
        if view.content["differences"]:
            yield view, plot_differences(view, f"differences-{slug}")


def plot_curves(view: View, name: str) -> Picture:
    """Draws the cascade of every method, its band over seeds, and its exits alone."""
    lines = style.label_lines([method["label"] for method in view.methods])
    curves = [method["curves"][view.criterion] for method in view.methods]
    costs = [cost for curve in curves for cost in curve["cost"]]
    with style.plot_style():
        figure = style.make_figure(5.2)
        axes = figure.add_subplot()
        for method in view.methods:
            _draw_method(axes, method, view, lines[method["label"]])
        axes.set_ylim(*_score_limits(view))
        _style_costs(axes, min(costs), max(costs))
        axes.set_ylabel(view.metric)
        axes.set_title(style.plain_text(view.title), pad=24)
        handles, _ = axes.get_legend_handles_labels()
        handles.append(
            Line2D([], [], color=MUTED, linestyle="", marker="D", label="an exit alone")
        )
        if any(curve["low"] is not None for curve in curves):
            text = f"{view.level} interval over seeds"
            handles.append(Patch(color=MUTED, alpha=0.2, linewidth=0, label=text))
        figure.legend(handles=handles, loc="outside upper left", ncols=4)
        png = style.render_png(figure)
    exits = "; ".join(
        f"{method['label']} "
        + ", ".join(format_mean(row["score"]) for row in method["exits"])
        for method in view.methods
    )
    return Picture(
        name,
        f"Speed against accuracy: {view.title}",
        f"Line: the cascade by {view.criterion}, mean over seeds; band: its"
        f" {view.level} interval over seeds (Student); diamonds: each exit alone at its"
        " cost. With one seed there is no band; with two it may leave the picture.",
        f"{view.metric} against the share of layers run, one line per method. Exits"
        f" alone: {exits}.",
        png,
    )


def plot_differences(view: View, name: str) -> Picture:
    """Draws the paired differences of every pair, at every exit and on average."""
    pairs = view.content["differences"]
    exits = [f"exit {i}" for i in range(len(view.content["exit_layers"]))]
    lines = style.label_lines([method["label"] for method in view.methods])
    with style.plot_style():
        figure, panels = style.make_panels(len(pairs), height_inches=3.2)
        title = style.plain_text(view.title)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, color=MUTED)
        limits = _difference_limits(pairs)
        for pair, axes in zip(pairs, panels, strict=True):
            color, _ = lines[pair["of"]]
            _draw_differences(axes, [*pair["exits"], pair["mean_exit"]], color)
            axes.set_xticks(range(len(exits) + 1), [*exits, "mean"])
            axes.set_xlim(-0.5, len(exits) + 0.5)
            axes.set_ylim(*limits)
            title = f"{pair['of']} \N{MINUS SIGN} {pair['minus']}"
            if pair["tasks"] != view.content["tasks"]:
                title += f" ({', '.join(pair['tasks'])} alone)"
            axes.set_title(style.plain_text(title))
        for axes in panels[:: style.figure_columns(len(panels))]:
            axes.set_ylabel("points")
        png = style.render_png(figure)
    numbers = "; ".join(
        f"{pair['of']} - {pair['minus']}: "
        + ", ".join(map(format_difference, [*pair["exits"], pair["mean_exit"]]))
        for pair in pairs
    )
    return Picture(
        name,
        f"Paired differences: {view.title}",
        "Dot: mean over seeds; small dots: the seeds; thick:"
        f" {view.level} interval over seeds (Student); thin: over seeds and test"
        " examples (two-level bootstrap). With one seed there is no interval;"
        " with two it may leave the picture.",
        f"Paired differences of {view.metric} in points. {numbers}.",
        png,
    )


def plot_sizes(record: dict[str, Any]) -> list[Picture]:
    """Draws score against training examples, where there are several sizes."""
    names: set[str] = set()
    return [
        _plot_sizes(views, f"sizes-{_make_slug(views[0], names)}")
        for views in group_by_size(record).values()
    ]


def _plot_sizes(views: Sequence[View], name: str) -> Picture:
    first = views[0]
    labels = list(dict.fromkeys(m["label"] for view in views for m in view.methods))
    lines = style.label_lines(labels)
    num_exits = len(first.content["exit_layers"])
    with style.plot_style():
        figure, panels = style.make_panels(num_exits + 1, height_inches=3.0)
        drawn: list[list[dict[str, Any]]] = [[] for _ in panels]
        for label, (panel, axes) in itertools.product(labels, enumerate(panels)):
            # A little apart, so that no bar hides another.
            shift = 1.03 ** (labels.index(label) - (len(labels) - 1) / 2)
            points = [
                (view.train_size * shift, described)
                for view in views
                for method in view.methods
                if method["label"] == label
                # Of fewer tasks it is no point of the same line.
                and method["tasks"] == view.content["tasks"]
                and (described := _score_of(method, panel, first.criterion))
            ]
            color, dashes = lines[label]
            _draw_sizes(axes, points, style.plain_text(label), color, dashes)
            drawn[panel] += [described for _, described in points]
        ticks = [view.train_size for view in views]
        for panel, axes in enumerate(panels):
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
            axes.set_xticks([], minor=True)
            axes.grid(True)
            means = [row["mean"] for row in drawn[panel]]
            bounds = [bound for row in drawn[panel] for bound in row["interval"] or []]
            axes.set_ylim(*_make_limits(means, bounds, 1.0))
            is_exit = panel < num_exits
            axes.set_title(f"exit {panel}" if is_exit else "area under the curve")
            axes.set_xlabel("training examples")
        for axes in panels[:: style.figure_columns(len(panels))]:
            axes.set_ylabel(first.metric)
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside upper left",
            ncols=4,
            title=style.plain_text(f"{first.subject}, {first.encoder}"),
            alignment="left",
        )
        png = style.render_png(figure)
    return Picture(
        name,
        f"Score against training examples: {first.subject}, {first.encoder}",
        f"Every exit alone, and the area of the cascade by {first.criterion}: mean over"
        f" seeds with its {first.level} interval (Student). Averages over fewer tasks"
        " are not drawn.",
        f"{first.metric} of {', '.join(labels)} with"
        f" {', '.join(f'{size:,}' for size in ticks)} training examples.",
        png,
    )


def _draw_method(
    axes: Axes, method: dict[str, Any], view: View, line: tuple[str, str]
) -> None:
    color, dashes = line
    curve = method["curves"][view.criterion]
    if curve["low"] is not None:
        axes.fill_between(
            curve["cost"], curve["low"], curve["high"], color=color, alpha=0.13, lw=0
        )
    count = len(method["seeds"])
    label = f"{method['label']} ({count} seed{'s' if count > 1 else ''}"
    if method["tasks"] != view.content["tasks"]:
        label += f"; {', '.join(method['tasks'])} alone"
    label += ")"
    axes.plot(
        curve["cost"],
        curve["mean"],
        color=color,
        linestyle=dashes,
        linewidth=2.2,
        label=style.plain_text(label),
        zorder=3,
    )
    axes.plot(
        [row["cost_fraction"] for row in method["exits"]],
        [row["score"]["mean"] for row in method["exits"]],
        "D",
        color=color,
        markersize=7,
        markeredgecolor="white",
        zorder=4,
    )


def _style_costs(axes: Axes, lowest: float, highest: float) -> None:
    """Sets cost below and the speed-up above, both by their ratios.

    Fast speeds, where methods differ, then have as much room as slow ones and what
    multi_model pays past the full model.
    """
    low, high = lowest / 1.1, max(1.0, highest) * 1.1
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xlabel("cost: mean layers run / layers of the full model")
    costs = [cost for cost in _COST_TICKS if low <= cost <= high]
    axes.set_xticks(costs, [f"{cost:g}" for cost in costs])
    axes.set_xticks([], minor=True)
    axes.grid(True)
    top = axes.secondary_xaxis("top")
    speedups = [speedup for speedup in _SPEEDUP_TICKS if low <= 1 / speedup <= high]
    top.set_xticks(
        [1 / speedup for speedup in speedups],
        [f"{speedup:g}\N{MULTIPLICATION SIGN}" for speedup in speedups],
    )
    top.set_xticks([], minor=True)
    top.tick_params(length=0, labelcolor=MUTED, pad=1)
    top.spines["top"].set_visible(False)


def _draw_differences(
    axes: Axes, differences: Sequence[dict[str, Any]], color: str
) -> None:
    axes.axhline(0, color=INK, linewidth=0.9)
    axes.grid(True, axis="y")
    for place, row in enumerate(differences):
        for interval, width, alpha in (
            ("over_seeds", 6.0, 0.35),
            ("over_seeds_and_rows", 1.5, 1.0),
        ):
            if row[interval] is not None:
                bounds = 100 * np.array(row[interval])
                axes.vlines(place, *bounds, color=color, linewidth=width, alpha=alpha)
        values = 100 * np.array(row["values"])
        axes.plot(np.full(len(values), place + 0.2), values, "o", color=MUTED, ms=3)
        axes.plot(
            place, 100 * row["mean"], "o", color=color, ms=8, markeredgecolor="white"
        )


def _draw_sizes(
    axes: Axes,
    points: Sequence[tuple[float, dict[str, Any]]],
    label: str,
    color: str,
    dashes: str,
) -> None:
    sizes = [size for size, _ in points]
    means = [row["mean"] for _, row in points]
    # One seed has no interval: its bar has no length.
    bars = [
        (row["interval"][1] - row["interval"][0]) / 2 if row["interval"] else 0.0
        for _, row in points
    ]
    axes.errorbar(
        sizes,
        means,
        bars,
        color=color,
        linestyle=dashes,
        linewidth=1.8,
        elinewidth=1.2,
        marker="o",
        markersize=5,
        label=label,
    )


def _score_of(
    method: dict[str, Any], panel: int, criterion: str
) -> dict[str, Any] | None:
    exits = method["exits"]
    return exits[panel]["score"] if panel < len(exits) else method["area"][criterion]


def _score_limits(view: View) -> tuple[float, float]:
    """Returns the y range of the curves, the exits and most of the bands."""
    scores = [row["score"]["mean"] for m in view.methods for row in m["exits"]]
    bounds = []
    for method in view.methods:
        curve = method["curves"][view.criterion]
        scores += curve["mean"]
        if curve["low"] is not None:
            bounds += [*curve["low"], *curve["high"]]
    return _make_limits(scores, bounds, 0.6)


def _difference_limits(pairs: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Returns the y range in points, the same in all panels, 0 included."""
    rows = [row for pair in pairs for row in [*pair["exits"], pair["mean_exit"]]]
    values = [0.0] + [value for row in rows for value in row["values"]]
    bounds = [bound for row in rows for bound in row["over_seeds_and_rows"] or []]
    low, high = _make_limits(values, bounds, 2.0)
    return 100 * low, 100 * high


def _make_limits(
    values: Sequence[float], bounds: Sequence[float], share: float
) -> tuple[float, float]:
    """Returns a range of all values, and of bounds up to a share of it further out.

    With two seeds intervals are so wide that everything else would lie on a line: they
    may leave the picture.
    """
    low, high = min(values), max(values)
    span = max(high - low, 0.02)
    low = max(min([low, *bounds]), low - share * span)
    high = min(max([high, *bounds]), high + share * span)
    return low - 0.06 * span, high + 0.06 * span


def _make_slug(view: View, taken: set[str]) -> str:
    """Returns a file name for a view, unlike the ones taken; adds it to them."""
    text = f"{view.subject}-{view.encoder}-n{view.train_size}"
    slug = base = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or "view"
    for number in itertools.count(2):
        if slug not in taken:
            break
        slug = f"{base}-{number}"
    taken.add(slug)
    return slug
