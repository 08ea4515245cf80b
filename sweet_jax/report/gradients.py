"""Gradient conflict in words, a picture and tables: do later exits pull another way?

The paper's diagnosis (section 3), as numbers: on a layer that at least three exits
share, the cosines of the nearest exit's gradient with later exits' are smaller than
those of the later exits' gradients among themselves. Cosines also fall with the
distance between two exits, and the nearest is further from later ones than these are
from each other: so the same is said of neighbouring exits alone.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from sweet_jax.report import style, tables
from sweet_jax.report.style import Picture
from sweet_jax.report.tables import Table

_PANELS_PER_ROW = 5
_MOST_PAIRS_WITH_NUMBERS = 6
_MEETING_HEADER = ("with later exits", "among later exits", "difference", "norm ratio")


@dataclasses.dataclass(frozen=True)
class Meeting:
    """How gradients meet on one group of parameters after one step.

    Attributes:
        name: of the group.
        nearest: exit that the parameters serve directly.
        step: steps of training done; None for a mean over steps.
        near: mean cosine of the nearest exit's gradient with later exits'.
        among: mean cosine of the later exits' gradients with each other.
        near_next: cosine of the nearest exit's gradient with the next exit's.
        among_next: mean cosine of two neighbouring later exits' gradients.
        near_of_mean: as `near`, of the mean gradients over the batches.
        among_of_mean: as `among`, likewise.
        ratio: geometric mean of |later exit's gradient| / |nearest exit's|.
    """

    name: str
    nearest: int
    step: int | None
    near: float
    among: float
    near_next: float
    among_next: float
    near_of_mean: float
    among_of_mean: float
    ratio: float

    @property
    def holds(self) -> bool:
        """Whether the later exits agree more with each other."""
        return self.near < self.among


def collect_meetings(conflict: dict[str, Any], level: str) -> list[Meeting]:
    """Returns a meeting per group that three exits or more share, and step.

    Where a gradient is 0 there is none: under sweet the list is empty.

    Args:
        conflict: gradient_conflict.json.
        level: `part`, `place` or `segment`.
    """
    meetings = []
    for measurement in conflict["measurements"]:
        groups = zip(conflict["groups"], measurement["conflicts"], strict=True)
        for group, numbers in groups:
            if group["level"] != level or len(group["exits"]) < 3:
                continue
            nearest = group["exits"][0]
            firsts, seconds = np.array(group["pairs"]).T
            is_near, is_next = firsts == nearest, seconds == firsts + 1
            cosine, of_mean, ratio = (
                np.array(numbers[field], float)  # null becomes NaN
                for field in ("cosine", "cosine_of_mean", "norm_ratio")
            )
            if np.isnan(cosine).any() or np.isnan(of_mean).any():
                continue
            meetings.append(
                Meeting(
                    name=group["name"],
                    nearest=nearest,
                    step=measurement["step"],
                    near=float(cosine[is_near].mean()),
                    among=float(cosine[~is_near].mean()),
                    near_next=float(cosine[is_near & is_next].mean()),
                    among_next=float(cosine[~is_near & is_next].mean()),
                    near_of_mean=float(of_mean[is_near].mean()),
                    among_of_mean=float(of_mean[~is_near].mean()),
                    ratio=float(np.exp(np.log(ratio[is_near]).mean())),
                )
            )
    return meetings


def later_steps(meetings: Sequence[Meeting]) -> list[Meeting]:
    """Returns those after a first step, or all where there are no others.

    Before it, exits are fresh and know no direction: cosines are about 0 by chance.
    """
    return [m for m in meetings if m.step] or list(meetings)


def average_steps(meetings: Sequence[Meeting]) -> list[Meeting]:
    """Returns a meeting per group, its numbers means over `later_steps`."""
    by_name: dict[str, list[Meeting]] = {}
    for meeting in later_steps(meetings):
        by_name.setdefault(meeting.name, []).append(meeting)
    fields = ("near", "among", "near_next", "among_next")
    fields += ("near_of_mean", "among_of_mean")
    return [
        dataclasses.replace(
            group[0],
            step=None,
            ratio=float(np.exp(np.mean([np.log(m.ratio) for m in group]))),
            **{f: float(np.mean([getattr(m, f) for m in group])) for f in fields},
        )
        for group in by_name.values()
    ]


def describe_conflict(conflict: dict[str, Any]) -> str:
    """Returns the paper's diagnosis on this run in a sentence, with its numbers."""
    text = _describe_cosines(conflict)
    if missing := conflict["missing_steps"]:
        steps = ", ".join(map(str, missing))
        text += f" Not measured, since training had passed them: steps {steps}."
    return text


def _describe_cosines(conflict: dict[str, Any]) -> str:
    if not conflict["measurements"]:
        return "Nothing was measured."
    if not any(len(group["exits"]) > 2 for group in conflict["groups"]):
        return "No layer is shared by three exits: there are no later exits to agree."
    layers = [
        m
        for m in later_steps(collect_meetings(conflict, "place"))
        if m.name.startswith("layer_")
    ]
    if not layers:
        return (
            "No later exit sends a gradient across a seam: on each weight there is the"
            " gradient of a single exit."
        )
    means = average_steps(layers)
    num_held, steps = sum(mean.holds for mean in means), {m.step for m in layers}
    near, among, near_next, among_next = (
        tables.format_number(float(np.mean([getattr(m, f) for m in means])), 2)
        for f in ("near", "among", "near_next", "among_next")
    )
    span = f"mean over {len(steps)} steps"
    if len(steps) == 1:
        span = f"at step {layers[0].step:,}"
    return (
        f"Mean cosine of the nearest exit's gradient with later exits' {near}, among"
        f" later exits' gradients {among}; of neighbouring exits alone {near_next} and"
        f" {among_next}. The paper's diagnosis, the former below the latter, holds in"
        f" {num_held} of {len(means)} layers shared by three exits or more ({span};"
        f" {sum(m.holds for m in layers)} of {len(layers)} layers and steps)."
    )


def make_layer_table(conflict: dict[str, Any]) -> Table:
    """Returns a row per place that three exits share, and step."""
    return Table(
        "Nearest exit against later exits: mean cosine over batches (in brackets: that"
        " of mean gradients), and |later exit's gradient| / |nearest exit's|",
        ("parameters", "step", "nearest", *_MEETING_HEADER),
        tuple(
            (m.name, f"{m.step:,}", f"exit {m.nearest}", *_format_meeting(m))
            for m in collect_meetings(conflict, "place")
        ),
    )


def make_kind_table(conflict: dict[str, Any]) -> Table:
    """Returns a row per kind of parameters: means over layers and steps."""
    by_kind: dict[str, list[Meeting]] = {}
    for meeting in collect_meetings(conflict, "part"):
        place, _, kind = meeting.name.partition("/")
        if place.startswith("layer_"):
            by_kind.setdefault(kind, []).append(dataclasses.replace(meeting, name=kind))
    return Table(
        "The same by kind of parameters: means over layers that three exits share and"
        " over steps (but for step 0)",
        ("parameters", *_MEETING_HEADER),
        tuple(
            (kind, *_format_meeting(average_steps(meetings)[0]))
            for kind, meetings in by_kind.items()
        ),
    )


def has_cosines(conflict: dict[str, Any]) -> bool:
    """Whether there is a step that was measured and a pair of exits."""
    pairs = [pair for group in conflict["groups"] for pair in group["pairs"]]
    return bool(conflict["measurements"] and pairs)


def plot_conflict(conflict: dict[str, Any]) -> Picture:
    """Draws cosines, places by pairs of exits, a panel for each of the steps measured.

    Args:
        conflict: gradient_conflict.json, in which `has_cosines`.
    """
    pairs = max((group["pairs"] for group in conflict["groups"]), key=len)
    places = [g for g in conflict["groups"] if g["level"] == "place" and g["pairs"]]
    steps = [m["step"] for m in conflict["measurements"]]
    columns = min(_PANELS_PER_ROW, len(steps))
    rows = math.ceil(len(steps) / columns)
    figure = style.make_figure(rows * (1.1 + 0.27 * len(places)))
    grid = figure.add_gridspec(rows, columns)
    colors = matplotlib.colormaps["RdBu"].with_extremes(bad=style.FAINT)
    for position, measurement in enumerate(conflict["measurements"]):
        axes = figure.add_subplot(grid[position // columns, position % columns])
        cosines = _arrange(conflict, measurement, places, pairs)
        axes.imshow(cosines, aspect="auto", cmap=colors, norm=Normalize(-1, 1))
        _blank_unreached(axes, places, pairs)
        if len(pairs) <= _MOST_PAIRS_WITH_NUMBERS:
            _write_numbers(axes, cosines, colors)
        percent = 100 * measurement["step"] / conflict["num_steps"]
        axes.set_title(f"step {measurement['step']:,} ({percent:.0f} %)")
        axes.set_xticks(range(len(pairs)), [f"{i}·{j}" for i, j in pairs], fontsize=7.5)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        names = [place["name"].replace("_", " ") for place in places]
        is_left = position % columns == 0
        axes.set_yticks(range(len(places)), names if is_left else [""] * len(places))
        if position // columns == rows - 1:
            axes.set_xlabel("exits")
    scale = ScalarMappable(Normalize(-1, 1), colors)
    figure.colorbar(scale, ax=figure.axes, label="cosine", shrink=0.8, pad=0.01)
    return Picture(
        "gradient_conflict",
        "Gradient conflict",
        "Cosine between the gradients of two exits' losses on the weights they share,"
        f" mean over {conflict['num_batches']} training batches: blue, they agree; red,"
        " they oppose each other; grey, one of them is 0. "
        + describe_conflict(conflict),
        f"Heat maps of layers by pairs of exits, one for each of {len(steps)} steps."
        f" {describe_conflict(conflict)}",
        style.render_png(figure),
    )


def _arrange(
    conflict: dict[str, Any],
    measurement: dict[str, Any],
    places: Sequence[dict[str, Any]],
    pairs: Sequence[Sequence[int]],
) -> np.ndarray:
    """Returns cosines [places, pairs], NaN where there is none."""
    shown = {place["name"]: row for row, place in enumerate(places)}
    cosines = np.full((len(places), len(pairs)), np.nan)
    groups = zip(conflict["groups"], measurement["conflicts"], strict=True)
    for group, numbers in groups:
        if group["level"] == "place" and group["name"] in shown:
            columns = [list(pairs).index(pair) for pair in group["pairs"]]
            cosines[shown[group["name"]], columns] = np.array(numbers["cosine"], float)
    return cosines


def _blank_unreached(
    axes: Axes, places: Sequence[dict[str, Any]], pairs: Sequence[Sequence[int]]
) -> None:
    """Leaves white what an earlier exit cannot reach; grey stays for gradients of 0."""
    for row, place in enumerate(places):
        num_unreached = len(pairs) - len(place["pairs"])
        # Pairs rise by their first exit, so the unreached ones come first.
        axes.axhspan(
            row - 0.5, row + 0.5, xmin=0, xmax=num_unreached / len(pairs), color="white"
        )


def _write_numbers(axes: Axes, cosines: np.ndarray, colors: Any) -> None:
    for (row, column), cosine in np.ndenumerate(cosines):
        if np.isfinite(cosine):
            axes.text(
                column,
                row,
                f"{cosine:.2f}".replace("0.", ".").replace("-.00", ".00"),
                ha="center",
                va="center",
                fontsize=6.5,
                color=style.contrasting_ink(colors(Normalize(-1, 1)(cosine))),
            )


def _format_meeting(meeting: Meeting) -> tuple[str, str, str, str]:
    number = tables.format_number
    return (
        f"{number(meeting.near)} ({number(meeting.near_of_mean)})",
        f"{number(meeting.among)} ({number(meeting.among_of_mean)})",
        f"{meeting.among - meeting.near:+.3f}",
        number(meeting.ratio, 2),
    )
