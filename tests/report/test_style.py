"""Looks: told apart, and the same wherever they are drawn."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sweet_jax.report import style


def test_exit_colors_darken_with_depth():
    for num_exits in (1, 4, 24):
        colors = np.array(style.exit_colors(num_exits))[:, :3]
        luminance = colors @ [0.299, 0.587, 0.114]
        assert (np.diff(luminance) < 0).all()


def test_line_looks_stay_apart():
    labels = [*style.METHOD_COLORS, *(f"sweet(a=.{i})" for i in range(15))]
    looks = style.label_lines(labels)
    assert len(set(looks.values())) == len(labels)
    assert looks["sweet"] == (style.METHOD_COLORS["sweet"], "-")


@pytest.mark.parametrize(
    "color", [(1, 1, 1), (0, 0, 0), (1, 1, 0), (0, 0, 0.6), (0.6, 0.6, 0.6)]
)
def test_ink_is_read_on_its_patch(color):
    """WCAG's relative luminance, whose contrast of 3 is asked of large letters."""

    def measure(rgb) -> float:
        linear = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb
        ]
        return float(np.array(linear) @ [0.2126, 0.7152, 0.0722])

    ink = style.contrasting_ink((*map(float, color), 1.0))
    lights = sorted(measure(c) for c in (color, to_rgb(ink)))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) > 3


def test_pictures_do_not_depend_on_the_users_style():
    def draw() -> bytes:
        with style.plot_style():
            figure, (left, _) = style.make_panels(2, height_inches=1.0)
            left.plot([0, 1], label="a")
            left.legend()
            return style.render_png(figure)

    before = draw()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert draw() == before
