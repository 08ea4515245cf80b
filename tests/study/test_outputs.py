"""What a study leaves, and the small copy of it that aggregates alike."""

import json
import os
import shutil
from pathlib import Path

import pytest
from study_files import make_study

from sweet_jax.commands.study import main
from sweet_jax.study import outputs
from sweet_jax.study.folder import StudyError
from sweet_jax.study.outputs import keep_study, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two methods and three seeds, with what runs leave beside it."""
    folder = make_study(tmp_path_factory.mktemp("study"), ("sweet", "early_exit"))
    for cell in (folder / "cells").iterdir():
        (cell / "checkpoints").mkdir()
        (cell / "checkpoints" / "weights").write_bytes(bytes(1000))
    return folder


def test_a_kept_copy_aggregates_to_the_same_study(study, tmp_path, capsys):
    copy = tmp_path / "kept"
    assert main([str(study), "--keep", str(copy)]) == 0
    assert "wrote" in capsys.readouterr().out
    assert not list(copy.glob("cells/*/checkpoints"))
    record, paths = write_study(copy)
    assert record == json.loads((study / "study.json").read_text())
    assert all(path.is_file() for path in paths)


def test_keeping_adds_new_cells_and_leaves_the_others(study, tmp_path):
    copy = tmp_path / "kept"
    keep_study(study, copy)
    first, second, *_ = sorted((copy / "cells").iterdir())
    (first / "results.json").write_text("kept before")
    shutil.rmtree(second)
    keep_study(study, copy)
    assert (first / "results.json").read_text() == "kept before"
    assert (second / "logits_test.npz").is_file()


def test_a_cell_is_kept_once_it_has_ended(study, tmp_path):
    running = Path(shutil.copytree(study, tmp_path / "study"))
    first = min((running / "cells").iterdir())
    status = (first / "cell.json").read_text()
    (first / "cell.json").unlink()
    keep_study(running, tmp_path / "kept")
    assert not (tmp_path / "kept" / "cells" / first.name).exists()
    (first / "cell.json").write_text(status)
    keep_study(running, tmp_path / "kept")
    record, _ = write_study(tmp_path / "kept")
    assert record["missing"] == []


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


def test_nothing_else_is_written_over(study, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(StudyError, match=r"--keep=.* holds other files"):
        keep_study(study, tmp_path)
    with pytest.raises(StudyError, match=r"holds no plan.json"):
        keep_study(tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
