"""Pictures of a run: any number of exits, whatever the user has named."""

from pathlib import Path

import pytest
from report_files import make_workdir

from sweet_jax.report import files, plots


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


def test_members_log_their_own_exit():
    rows = [
        {"step": step, "member": member, "loss": [0.5]}
        for member in ("member_0", "member_3")
        for step in (1, 2)
    ]
    series = plots.collect_losses(rows, 4)
    assert series == [[(1, 0.5), (2, 0.5)], [], [], [(1, 0.5), (2, 0.5)]]
