"""What a study leaves, and the archive of it that aggregates alike."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import run_command
from study_files import make_study

from sweet_jax.study import outputs
from sweet_jax.study.archive import open_study
from sweet_jax.study.outputs import keep_study, write_study

KEPT = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two methods and three seeds."""
    return make_study(tmp_path_factory.mktemp("study"), ("sweet", "early_exit"))


def test_a_kept_archive_aggregates_to_the_same_study(study, tmp_path, capsys):
    kept = tmp_path / "kept.zip"
    assert run_command("study", str(study), "--keep", str(kept)) == 0
    told = capsys.readouterr().out
    assert f"wrote {kept}\nwrote {tmp_path}/kept.md\nwrote {tmp_path}/kept.png" in told
    assert run_command("study", str(kept)) == 0
    for name in ("study.json", "study.md", "study.html", "plots/study.png"):
        again = (tmp_path / "kept" / name).read_bytes()
        assert again == (study / name).read_bytes(), name
    # The page is the report, and shows the picture beside it.
    page, report = (
        (tmp_path / "kept.md").read_text(),
        (study / "study.md").read_text(),
    )
    assert "](kept.png)" in page
    assert page == report.replace("](plots/study.png)", "](kept.png)")
    picture = (study / "plots" / "study.png").read_bytes()
    assert (tmp_path / "kept.png").read_bytes() == picture


@pytest.mark.slow
@pytest.mark.parametrize("archive", sorted(KEPT.glob("*.zip")), ids=lambda p: p.stem)
def test_the_kept_studies_say_what_is_written_beside_them(archive, tmp_path):
    shutil.copyfile(archive, tmp_path / archive.name)
    folder = open_study(tmp_path / archive.name)
    record, _ = write_study(folder)
    keep_study(folder, record, tmp_path / archive.name)
    # The picture's bytes are those of one version of matplotlib.
    for suffix in (".zip", ".md"):
        kept = tmp_path / f"{archive.stem}{suffix}"
        assert kept.read_bytes() == archive.with_suffix(suffix).read_bytes(), suffix


def test_a_study_without_results_is_kept_without_picture(tmp_path):
    folder = make_study(tmp_path / "study", ())
    assert run_command("study", str(folder), "--keep", str(tmp_path / "kept.zip")) == 0
    assert "![" not in (tmp_path / "kept.md").read_text()
    assert not (tmp_path / "kept.png").exists()


def test_a_cell_that_ends_meanwhile_is_in_the_study(study, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    last = max((folder / "cells").iterdir())
    status = (last / "cell.json").read_text()
    (last / "cell.json").unlink()
    told = []

    def report(of: Path) -> list[Path]:
        told.append(json.loads((of / "study.json").read_text())["missing"])
        (last / "cell.json").write_text(status)
        os.utime(last / "cell.json", ns=(0, 0))
        return []

    monkeypatch.setattr(outputs, "write_study_report", report)
    record, _ = write_study(folder)
    assert told == [[last.name], []]
    assert record == json.loads((folder / "study.json").read_text())


@pytest.mark.parametrize("name", ["notes.md", "notes.png"])
def test_what_is_no_report_is_not_written_over(study, tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert run_command("study", str(study), "--keep", str(tmp_path / "notes.zip")) == 2
    assert f"{name} exists without" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
