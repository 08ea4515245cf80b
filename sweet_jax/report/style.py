"""How every picture looks: colours, type, size; from a figure to PNG bytes."""

import contextlib
import dataclasses
import io
import itertools
import math
from collections.abc import Iterator, Sequence

import matplotlib
import matplotlib.style
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

DPI = 160
WIDTH_INCHES = 10.0
INK = "#222222"
MUTED = "#6b6b6b"
FAINT = "#d9d9d9"

# Okabe and Ito's colours, told apart by colour-blind readers. A method keeps its own
# in every picture.
METHOD_COLORS = {"sweet": "#D55E00", "early_exit": "#0072B2", "multi_model": "#009E73"}
_LINE_STYLES = ("-", "--", ":")
_OTHER_COLORS = ("#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#8C6D31", "#7B5EA7")

_STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A finished plot.

    Attributes:
        name: file name without the suffix.
        title: heading above the picture in the report.
        caption: how to read it.
        alt: what it shows, for those who do not see it.
        png: the file's bytes.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: bytes


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Draws under the project's style alone, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(_STYLE, after_reset=True):
        yield


def make_figure(height_inches: float) -> Figure:
    """Returns an empty figure of the common width, without pyplot's global state."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")


def render_png(figure: Figure) -> bytes:
    """Returns PNG bytes that depend on the figure alone (no date, no version)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def exit_colors(num_exits: int) -> list[tuple[float, ...]]:
    """Returns a colour per exit: the deeper, the darker."""
    colormap = matplotlib.colormaps["viridis"]
    if num_exits == 1:
        return [colormap(0.3)]
    return [colormap(0.78 - 0.73 * i / (num_exits - 1)) for i in range(num_exits)]


def contrasting_ink(color: tuple[float, ...]) -> str:
    """Returns the text colour that reads best on a patch of the given colour."""
    red, green, blue = color[:3]
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def label_lines(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns (colour, line style) per label; plain methods keep their own."""
    others = [label for label in labels if label not in METHOD_COLORS]
    lines = {label: (color, "-") for label, color in METHOD_COLORS.items()}
    # Colours that come round again are told apart by their dashes.
    looks = itertools.product(_LINE_STYLES, _OTHER_COLORS)
    for label, (dashes, color) in zip(others, itertools.cycle(looks), strict=False):
        lines[label] = (color, dashes)
    return {label: lines[label] for label in labels}


def plain_text(text: str) -> str:
    """Returns the user's text safe to draw: no formulas, only glyphs the font has."""
    known = get_font(findfont("DejaVu Sans")).get_charmap()
    shown = "".join(c if ord(c) in known else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown.replace("$", r"\$")


def figure_columns(num_panels: int) -> int:
    """Returns the number of columns that panels are laid out in."""
    return num_panels if num_panels <= 3 else 2


def make_panels(num_panels: int, height_inches: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels left to right, top to bottom."""
    columns = figure_columns(num_panels)
    rows = math.ceil(num_panels / columns)
    figure = make_figure(height_inches * rows)
    grid = figure.add_gridspec(rows, columns)
    places = itertools.islice(
        itertools.product(range(rows), range(columns)), num_panels
    )
    return figure, [figure.add_subplot(grid[row, column]) for row, column in places]


def halo(color: str | tuple[float, ...]) -> patheffects.withStroke:
    """Returns an outline that keeps a text readable on top of lines and edges."""
    return patheffects.withStroke(linewidth=2.5, foreground=color)
