"""Archives of studies: the same bytes each time, and hostile ones change nothing."""

import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from study_files import make_study

from sweet_jax.study import archive
from sweet_jax.study.archive import open_study, write_archive
from sweet_jax.study.folder import StudyError, read_study
from sweet_jax.system.files import FileError

Edit = Callable[[zipfile.ZipFile, dict[str, bytes]], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two cells, with what runs leave beside it."""
    folder = make_study(tmp_path_factory.mktemp("made") / "s", ("sweet",), seeds=(0, 1))
    for cell in (folder / "cells").iterdir():
        (cell / "checkpoints").mkdir()
        (cell / "checkpoints" / "weights").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "study"))


def read_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_archive_holds_what_an_aggregation_reads(study: Path, tmp_path: Path):
    write_archive(study, tmp_path / "kept.zip")
    folder = open_study(tmp_path / "kept.zip")
    assert folder == tmp_path / "kept"
    found, whole = read_files(folder), read_files(study)
    assert found == {n: whole[n] for n in whole if "checkpoints" not in n}
    assert len(read_study(folder).finished) == 2
    assert open_study(study) == study


def test_an_archive_depends_on_its_files_alone(study: Path, tmp_path: Path):
    write_archive(study, tmp_path / "one.zip")
    copy = tmp_path / "copy"
    for name, content in sorted(read_files(study).items(), reverse=True):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
        os.utime(copy / name, (0, 0))
        (copy / name).chmod(0o600)
    write_archive(copy, tmp_path / "two.zip")
    one = (tmp_path / "one.zip").read_bytes()
    assert one == (tmp_path / "two.zip").read_bytes()
    # An archive of what an archive held is that archive.
    write_archive(open_study(tmp_path / "one.zip"), tmp_path / "three.zip")
    assert one == (tmp_path / "three.zip").read_bytes()


def test_unpacking_again_uses_what_is_there(study: Path, tmp_path: Path):
    write_archive(study, tmp_path / "kept.zip")
    folder = open_study(tmp_path / "kept.zip")
    (folder / "study.json").write_text("a report")
    assert open_study(tmp_path / "kept.zip") == folder
    assert (folder / "study.json").read_text() == "a report"


def test_a_folder_that_is_another_is_left_alone(study: Path, tmp_path: Path):
    write_archive(study, tmp_path / "kept.zip")
    folder = open_study(tmp_path / "kept.zip")
    first, second = sorted((folder / "cells").iterdir())
    (first / "results.json").write_text("changed")
    with pytest.raises(
        StudyError, match=r"kept differs from the contents of .*kept.zip: move"
    ):
        open_study(tmp_path / "kept.zip")
    assert (first / "results.json").read_text() == "changed"
    shutil.copyfile(
        study / "cells" / first.name / "results.json", first / "results.json"
    )
    shutil.copytree(second, folder / "cells" / "another")
    with pytest.raises(StudyError, match=r"differs from the contents"):
        open_study(tmp_path / "kept.zip")
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(StudyError, match=r"differs from the contents"):
        open_study(tmp_path / "kept.zip")
    assert folder.read_text() == "a file"


def test_cells_that_have_not_ended_are_left_out(study: Path, tmp_path: Path):
    first, second = sorted((study / "cells").iterdir())
    (first / "cell.json").unlink()
    write_archive(study, tmp_path / "kept.zip")
    folder = open_study(tmp_path / "kept.zip")
    assert [path.name for path in (folder / "cells").iterdir()] == [second.name]


def test_keeping_loses_no_cell_and_writes_over_nothing_else(study, tmp_path):
    target = tmp_path / "kept.zip"
    write_archive(study, target)
    before = target.read_bytes()
    first = min((study / "cells").iterdir())
    status = (first / "cell.json").read_bytes()
    (first / "cell.json").unlink()
    with pytest.raises(StudyError, match=rf"holds 1 cells .* as {first.name[:9]}"):
        write_archive(study, target)
    assert target.read_bytes() == before
    (first / "cell.json").write_bytes(status)
    write_archive(study, target)
    assert target.read_bytes() == before
    target.write_text("notes")
    with pytest.raises(
        StudyError, match=r"exists and is not an archive of a study: name"
    ):
        write_archive(study, target)
    assert target.read_text() == "notes"
    with pytest.raises(StudyError, match=r"ends in .zip"):
        write_archive(study, tmp_path / "kept.tar.gz")
    with pytest.raises(StudyError, match=r"has no plan.json"):
        write_archive(tmp_path, tmp_path / "none.zip")
    assert not (tmp_path / "none.zip").exists()


def test_a_damaged_cell_is_not_kept(study: Path, tmp_path: Path):
    path = min((study / "cells").iterdir()) / "logits_calibration.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"logits_calibration.npz was altered"):
        write_archive(study, tmp_path / "kept.zip")
    assert not list(tmp_path.glob("*kept*"))


def test_a_study_too_large_for_an_archive_is_refused(study, tmp_path, monkeypatch):
    write_archive(study, tmp_path / "kept.zip")
    monkeypatch.setattr(archive, "_MOST_FILE_BYTES", 1000)
    with pytest.raises(StudyError, match=r"copy the study's folder instead"):
        write_archive(study, tmp_path / "other.zip")
    with pytest.raises(StudyError, match=r"kept.zip: its files have .* may hold"):
        open_study(tmp_path / "kept.zip")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", ["study", "study.tar.gz"])
def test_another_file_is_no_study(tmp_path: Path, name: str):
    (tmp_path / name).write_text("text")
    with pytest.raises(StudyError, match=r"is a file: give the folder .* NAME.zip"):
        open_study(tmp_path / name)


def put(name: str, content: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> Edit:
    """Returns an edit that adds a file."""

    def edit(target: zipfile.ZipFile, files: dict[str, bytes]) -> None:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        target.writestr(member, content)

    return edit


def drop_plan(target: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    del files["plan.json"]


def compress_otherwise(target: zipfile.ZipFile, files: dict[str, bytes]) -> None:
    target.writestr("plan.json", files.pop("plan.json"), zipfile.ZIP_LZMA)


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (put("../evil"), r"holds \.\./evil, not a study file"),
        (put("/tmp/evil"), r"holds /tmp/evil, not a study file"),
        (put("cells/../plan.json"), r"holds cells/\.\./plan.json, not a study file"),
        (put("cells/../../plan.json"), r"not a study file"),
        (put("cells/../cell.json"), r"not a study file"),
        (put("cells/./cell.json"), r"not a study file"),
        (put("cells//cell.json"), r"not a study file"),
        (put("cells/a/b/cell.json"), r"not a study file"),
        (put("cells/a/evil.py"), r"holds cells/a/evil.py, not a study file"),
        (put("study/plan.json"), r"not a study file"),
        (put("cells/\x1b[31m/evil"), r"holds cells/\\x1b\[31m/evil, not a study file"),
        (put("cells/a/cell.json", mode=stat.S_IFLNK | 0o777), "is not a regular file"),
        (put("cells/a/cell.json", mode=stat.S_IFIFO | 0o644), "is not a regular file"),
        (put("plan.json"), r"holds plan.json twice"),
        (drop_plan, r"holds no plan.json: make it with"),
        (compress_otherwise, r"plan.json is not deflated"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_archive_writes_nothing(made, tmp_path, edit: Edit, error: str):
    files = {n: c for n, c in read_files(made).items() if "checkpoints" not in n}
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "s.zip", "w") as target:
        edit(target, files)
        for name, content in files.items():
            target.writestr(name, content)
    with pytest.raises(StudyError, match=error) as told:
        open_study(tmp_path / "in" / "s.zip")
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "s.zip"]


def test_a_file_longer_than_it_says_is_not_written(made: Path, tmp_path: Path):
    """A size in the list of files that is not the file's: at most that much is read."""
    path = tmp_path / "s.zip"
    plan = (made / "plan.json").read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("plan.json", plan)
        target.writestr("cells/bomb/results.json", bytes(1 << 24))
    data = path.read_bytes()
    path.write_bytes(data.replace((1 << 24).to_bytes(4, "little"), b"\x10\0\0\0"))
    with pytest.raises(FileError, match=r"is damaged"):
        open_study(path)
    assert [path.name for path in tmp_path.iterdir()] == ["s.zip"]


def test_damage_anywhere_is_one_line_and_leaves_nothing(made: Path, tmp_path: Path):
    path = tmp_path / "s.zip"
    write_archive(made, path)
    data = path.read_bytes()
    for start in range(0, len(data), len(data) // 60):
        for damaged in (data[:start], data[:start] + b"\xff\xff" + data[start + 2 :]):
            path.write_bytes(damaged)
            shutil.rmtree(tmp_path / "s", ignore_errors=True)
            error = None
            try:
                read_study(open_study(path))
            except (StudyError, FileError) as raised:
                error = str(raised)
            assert (error is None) == (tmp_path / "s").exists()
            assert "\n" not in (error or "")
            assert not list(tmp_path.glob(".*"))
