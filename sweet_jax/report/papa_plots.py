"""The pictures of PAPA: score by dynamic heads, heads by layer, the constants."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize

from sweet_jax.report import style, tables
from sweet_jax.report.style import Picture

# Quantile of a head's constants that is drawn black: a single large one hides the rest.
_DARKEST = 0.995


def plot_papa(record: dict[str, Any]) -> list[Picture]:
    """Returns the pictures that papa.json gives."""
    with style.plot_style():
        pictures = [plot_scores(record)]
        pictures += [plot_ranking(record, name) for name in record["rankings"]]
    return pictures


def plot_scores(record: dict[str, Any]) -> Picture:
    """Draws the score against the number of dynamic heads, which falls to the right."""
    total = record["num_layers"] * record["num_heads"]
    figure = style.make_figure(4.6)
    axes = figure.add_subplot()
    names = {name_curve(curve): curve for curve in record["curves"]}
    looks = style.label_lines(list(names))
    numbers = sorted({p["dynamic_heads"] for c in names.values() for p in c["points"]})
    # Equal steps: the paper's numbers crowd near 0.
    place = {number: i for i, number in enumerate(reversed(numbers))}
    for shift, (name, curve) in enumerate(names.items()):
        points, (color, dashes) = curve["points"], looks[name]
        x = np.array([place[p["dynamic_heads"]] for p in points]) + 0.04 * (
            shift - (len(names) - 1) / 2
        )
        y = np.array([p["score"] for p in points])
        axes.plot(x, y, dashes, color=color, marker="o", markersize=5, label=name)
        for where, point in zip(x, points, strict=True):
            if point["interval"] is not None:
                low_high = point["interval"]
                axes.plot([where] * 2, low_high, color=color, alpha=0.45, lw=2)
        for seed in zip(*(p["scores"] for p in points), strict=True):
            axes.plot(x, seed, ".", color=color, markersize=3, alpha=0.6)
    axes.set_xticks(
        range(len(numbers)), [f"{n}\n{n / total:.0%}" for n in reversed(numbers)]
    )
    axes.set_xlabel(f"dynamic heads, of {total}")
    axes.set_ylabel(tables.metric_name(record))
    axes.grid(axis="y")
    if len(names) > 1:
        figure.legend(loc="outside right upper")
    first = record["curves"][0]["points"]
    return Picture(
        "papa_scores",
        "Score against the number of dynamic heads",
        "Mean over the seeds of the probe, 95 % interval for new seeds and rows (bars),"
        " and every seed (dots). At the left the encoder as it is; to the right more"
        " and more heads read by constants. The majority class has"
        f" {record['majority']:.3f}.",
        f"The score goes from {first[0]['score']:.3f} with all heads dynamic to"
        f" {first[-1]['score']:.3f} with {first[-1]['dynamic_heads']}.",
        style.render_png(figure),
    )


def name_curve(curve: dict[str, Any]) -> str:
    """Returns how a curve is called: its ranking and its constants."""
    return style.plain_text(f"{curve['ranking']}, {curve['constants']}")


def plot_ranking(record: dict[str, Any], name: str) -> Picture:
    """Draws scores and ranks of heads, layers by heads."""
    ranking = record["rankings"][name]
    num_layers, num_heads = record["num_layers"], record["num_heads"]
    figure = style.make_figure(1.6 + 0.22 * num_layers)
    grid = figure.add_gridspec(1, 2)
    parts = (
        ("score (low: becomes constant early)", ranking["scores"], "viridis"),
        ("place in the order (0: first)", ranking["ranks"], "cividis"),
    )
    for column, (title, values, colors) in enumerate(parts):
        axes = figure.add_subplot(grid[0, column])
        image = axes.imshow(np.array(values, float), aspect="auto", cmap=colors)
        axes.set_title(title)
        axes.set_xlabel("head")
        axes.set_xticks(range(0, num_heads, max(1, num_heads // 12)))
        axes.set_yticks(range(num_layers), [f"layer {i}" for i in range(num_layers)])
        axes.tick_params(length=0, labelsize=7.5)
        figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    order = np.argsort(np.array(ranking["ranks"]).reshape(-1))
    first = ", ".join(f"{i // num_heads}.{i % num_heads}" for i in order[:5])
    return Picture(
        f"papa_heads_{name}",
        f"Heads ranked by {name}",
        "Left: the score of every head; right: its place in the order in which heads"
        f" become constant. The first ones (layer.head): {first}.",
        f"Two heat maps of {num_layers} layers by {num_heads} heads.",
        style.render_png(figure),
    )


def plot_constants(constants_IHLL: np.ndarray) -> Picture:
    """Draws the constants of every head, a small square each, layers downwards.

    Args:
        constants_IHLL: the averages.
    """
    num_layers, num_heads, length, _ = constants_IHLL.shape
    darkest = np.quantile(constants_IHLL, _DARKEST, axis=(2, 3), keepdims=True)
    shades = np.clip(constants_IHLL / np.maximum(darkest, 1e-12), 0, 1)
    gap = max(1, length // 16)
    tiles = np.pad(shades, [(0, 0), (0, 0), (0, gap), (0, gap)], constant_values=np.nan)
    size = length + gap
    sheet = tiles.transpose(0, 2, 1, 3).reshape(num_layers * size, num_heads * size)
    with style.plot_style():
        figure = style.make_figure(0.6 + 9.6 * num_layers / num_heads)
        axes = figure.add_subplot()
        colors = matplotlib.colormaps["Greys"].with_extremes(bad="white")
        axes.imshow(np.sqrt(sheet), cmap=colors, norm=Normalize(0, 1))
        axes.set_xticks(
            [i * size + length / 2 for i in range(num_heads)],
            list(map(str, range(num_heads))),
        )
        axes.set_yticks(
            [i * size + length / 2 for i in range(num_layers)],
            list(map(str, range(num_layers))),
        )
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        axes.tick_params(length=0, labelsize=7.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
        png = style.render_png(figure)
    return Picture(
        "papa_constants",
        "The constants",
        "Average attention of every head: queries downwards, keys to the right, each"
        " from the first to the last slot; darker is more, on a scale of its own for"
        " each head. A diagonal reads the token itself, a line beside it its neighbour,"
        " a dark column at the left the first token, at the right the separator.",
        f"{num_layers} by {num_heads} small squares.",
        png,
    )
