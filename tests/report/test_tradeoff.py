"""The trade-off: what shares a panel, and names that are drawn as they are."""

from pathlib import Path

from report_files import make_workdir

from sweet_jax.report import files, style, tradeoff


def test_names_are_drawn_letter_by_letter(tmp_path: Path):
    evil = "\"'& 模型 $\\frac{$"
    names = dict.fromkeys(("task", "encoder", "method_label"), evil)
    make_workdir(tmp_path, exit_layers=(5,), num_examples=20, **names)
    # No formula, no glyph that the font lacks (a warning is an error here).
    with style.plot_style():
        assert tradeoff.plot_speed_accuracy(files.read_run(tmp_path)).png


def test_criteria_with_the_same_curve_share_a_panel(tmp_path: Path):
    two = files.read_run(make_workdir(tmp_path / "two"))
    assert tradeoff.group_criteria([two]) == [
        ["confidence", "entropy", "margin"],
        ["patience"],
    ]
    three = files.read_run(make_workdir(tmp_path / "three", num_classes=3))
    assert len(tradeoff.group_criteria([three])) == 4
    assert len(tradeoff.group_criteria([two, three])) == 4
