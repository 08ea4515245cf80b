"""Pictures of a run: any number of exits, whatever the user has named."""

from pathlib import Path

import numpy as np
import pytest
from report_files import make_workdir

from sweet_jax.report import files, plots, style, tradeoff


@pytest.mark.parametrize(
    ("num_classes", "exit_layers", "method", "logged"),
    [(2, (5,), "early_exit", False), (3, tuple(range(7)), "multi_model", True)],
)
def test_pictures_of_any_number_of_exits(
    tmp_path: Path, num_classes, exit_layers, method, logged
):
    make_workdir(
        tmp_path,
        num_classes,
        exit_layers=exit_layers,
        num_examples=60,
        criteria=("confidence", "patience"),
        logged=logged,
        method=method,
        method_label=method,
    )
    drawn = [picture.name for picture in plots.plot_run(files.read_run(tmp_path))]
    assert len(drawn) == 3 + logged
    assert ("training_loss" in drawn) == logged


def test_names_are_drawn_letter_by_letter(tmp_path: Path):
    evil = "\"'& 模型 $\\frac{$"
    names = dict.fromkeys(("task", "encoder", "method_label"), evil)
    make_workdir(tmp_path, exit_layers=(5,), num_examples=20, **names)
    # No formula, no glyph that the font lacks (a warning is an error here).
    with style.plot_style():
        assert tradeoff.plot_speed_accuracy(files.read_run(tmp_path)).png


def test_members_log_their_own_exit():
    rows = [
        {"step": step, "member": member, "loss": [0.5]}
        for member in ("member_0", "member_3")
        for step in (1, 2)
    ]
    series = plots.collect_losses(rows, 4)
    assert series == [[(1, 0.5), (2, 0.5)], [], [], [(1, 0.5), (2, 0.5)]]


def test_criteria_with_the_same_curve_share_a_panel(tmp_path: Path):
    two = files.read_run(make_workdir(tmp_path / "two"))
    assert tradeoff.group_criteria([two]) == [
        ["confidence", "entropy", "margin"],
        ["patience"],
    ]
    three = files.read_run(make_workdir(tmp_path / "three", num_classes=3))
    assert len(tradeoff.group_criteria([three])) == 4
    assert len(tradeoff.group_criteria([two, three])) == 4


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
