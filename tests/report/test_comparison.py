"""Comparisons: several runs of one task side by side, seeds averaged, nothing lost."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from report_files import change_results, make_workdir

from sweet_jax.commands.report import main
from sweet_jax.report import ReportError, comparison, files, write_comparison


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> list[Path]:
    """Two methods with two seeds each, and one run of a third."""
    base = tmp_path_factory.mktemp("study")
    return [
        make_workdir(
            base / f"{method}{seed}",
            seed=seed,
            num_examples=60,
            method=method,
            method_label=method,
        )
        for method, seed in (
            ("sweet", 0),
            ("early_exit", 0),
            ("sweet", 1),
            ("early_exit", 1),
            ("multi_model", 0),
        )
    ]


@pytest.fixture(scope="module")
def compared(study: list[Path], tmp_path_factory) -> tuple[Path, str]:
    """The directory of their comparison, and what the command printed."""
    output = tmp_path_factory.mktemp("compared") / "out"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*map(str, study), "--output", str(output)]) == 0
    return output, printed.getvalue()


@pytest.fixture
def workdir(study: list[Path], tmp_path: Path) -> Path:
    """A run of one's own: the first of the study."""
    return Path(shutil.copytree(study[0], tmp_path / "run"))


def test_comparison_writes_picture_page_and_record(compared: tuple[Path, str]):
    output, printed = compared
    *lines, _, _, _ = printed.splitlines()  # paths are as long as they are
    assert max(map(len, lines)) <= 100
    page = Page((output / "comparison.html").read_text(encoding="utf-8"))
    assert "://" not in page.source
    assert len(page.values("img", "src")) == 1
    assert "cost of multi_model" in page.text
    record = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    assert record["task"] == "rotten_tomatoes"
    assert len(record["runs"]) == 5
    picture = (output / "plots" / "speed_accuracy.png").read_bytes()
    assert int.from_bytes(picture[16:20]) == 1600


def test_comparison_has_a_row_per_run_and_the_mean_of_seeds(
    study: list[Path], compared: tuple[Path, str]
):
    runs = [files.read_run(path) for path in study]
    exits, *speedups = comparison.make_tables(comparison.group_runs(runs))
    assert [row[:2] for row in exits.rows] == [
        ("sweet", "0"),
        ("sweet", "1"),
        ("sweet", "mean of 2"),
        ("early_exit", "0"),
        ("early_exit", "1"),
        ("early_exit", "mean of 2"),
        ("multi_model", "0"),
    ]
    assert exits.strong_rows == {2, 5}
    pair = [runs[i].results["exits"][0]["score"] for i in (0, 2)]
    mean, deviation = np.mean(pair), np.std(pair, ddof=1)
    assert exits.rows[2][2] == f"{mean:.3f} ±{deviation:.3f}"
    assert exits.rows[2][2] in compared[1]
    assert exits.rows[0][-1] == f"{runs[0].results['full']:.3f}"
    assert speedups[0].header[-1] == "area"
    area = runs[4].results["area"]["confidence"]
    assert speedups[0].rows[-1][-1] == f"{area:.3f}"


def test_comparison_never_overwrites_another(
    study: list[Path], compared: tuple[Path, str], tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    runs = [files.read_run(path) for path in study]
    target = comparison.choose_target(runs, None)
    assert re.fullmatch(r"comparison-rotten_tomatoes-\w{8}", target.name)
    assert comparison.choose_target(runs[1:3], None) != target
    # The same runs again, in whatever order, are the same comparison.
    shutil.copytree(compared[0], target)
    assert comparison.choose_target(runs[::-1], None) == target
    with pytest.raises(ReportError, match="comparison of other runs"):
        write_comparison(study[:3], target)
    with pytest.raises(ReportError, match="holds other files"):
        write_comparison(study[:2], study[0])
    with pytest.raises(ReportError, match="is a file"):
        write_comparison(study[:2], study[0] / "results.json")
    (target / "comparison.json").write_text("{}")
    with pytest.raises(ReportError, match="comparison of other runs"):
        write_comparison(study, target)


def test_an_unwritable_place_is_one_line_and_status_2(tmp_path: Path, capsys):
    runs = [
        make_workdir(tmp_path / str(seed), 2, seed, exit_layers=(5,), num_examples=20)
        for seed in (0, 1)
    ]
    inside_a_file = runs[0] / "results.json" / "inside"
    assert main([*map(str, runs), "--output", str(inside_a_file)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch("error: .*Not a directory.*\n", errors)


def test_comparison_refuses_what_shares_no_axis(
    study: list[Path], workdir: Path, tmp_path: Path, capsys
):
    output = tmp_path / "out"
    change_results(workdir, task="rte")
    assert main([str(study[0]), str(workdir), "--output", str(output)]) == 2
    assert re.fullmatch(
        r"error: task differs \(rotten_tomatoes in .*, rte in .*\): .*\n",
        capsys.readouterr().err,
    )
    change_results(workdir, task="rotten_tomatoes", metric="f1")
    with pytest.raises(ReportError, match=r"metric differs \(accuracy in .*, f1 in"):
        write_comparison([study[0], workdir], output)
    with pytest.raises(ReportError, match="is given twice"):
        write_comparison([study[0], study[0] / ".." / study[0].name], output)
    assert not output.exists()


def test_only_seeds_are_averaged(study: list[Path], tmp_path: Path):
    def labels(*paths: Path) -> list[tuple[str, int]]:
        groups = comparison.group_runs([files.read_run(path) for path in paths])
        return [(group.label, len(group.runs)) for group in groups]

    assert labels(*study) == [("sweet", 2), ("early_exit", 2), ("multi_model", 1)]
    sweet = {"method_label": "sweet", "num_examples": 20}
    other = make_workdir(
        tmp_path / "norm", seed=3, settings={"clip_norm": 2.0}, **sweet
    )
    assert labels(study[0], study[2], other) == [
        ("sweet, optim.clip_norm=1", 2),
        ("sweet, optim.clip_norm=2", 1),
    ]
    again = make_workdir(tmp_path / "again", seed=0, **sweet)
    assert labels(study[0], again) == [("sweet, sweet0", 1), ("sweet, again", 1)]
    wide = make_workdir(tmp_path / "wide", seed=4, encoder="bge-small", **sweet)
    assert labels(study[0], wide) == [("sweet, minilm-l6", 1), ("sweet, bge-small", 1)]
    notes = comparison.make_notes([files.read_run(study[0]), files.read_run(wide)])
    assert "the runs differ in encoder" in notes


def test_comparison_notes_other_test_rows(study: list[Path], workdir: Path):
    splits = {"train": 2000, "calibration": 1000, "test": 17}
    change_results(workdir, splits=splits)
    notes = comparison.make_notes([files.read_run(study[0]), files.read_run(workdir)])
    assert any("different numbers of test rows" in note for note in notes)
