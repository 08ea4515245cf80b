"""Names of a job's files, and what is written to one."""

import hashlib
import os
from pathlib import Path

import pytest

from sweet_jax.serving.job_files import JobError, JobFile, JobPaths, Written


def open_new(path: Path) -> JobFile:
    path.touch()
    return JobFile(path)


def test_the_names_lie_beside_the_output(tmp_path: Path) -> None:
    paths = JobPaths.beside(tmp_path / "a.csv")
    assert paths.rejected == tmp_path / "a.csv.rejected.jsonl"
    assert paths.record == tmp_path / "a.csv.job.json"
    paths.check()
    assert paths.list_existing() == ""


def test_a_file_without_the_record_of_its_job_is_refused(tmp_path: Path) -> None:
    paths = JobPaths.beside(tmp_path / "a.csv")
    paths.output.touch()
    with pytest.raises(JobError, match=r"a\.csv exists and is not of this command"):
        paths.check()
    paths.rejected.touch()
    with pytest.raises(JobError, match=r"exist and are not of this command.*move them"):
        paths.check()
    paths.record.touch()
    paths.check()
    assert paths.list_existing().count(" and ") == 2


def test_a_name_too_long_for_its_siblings_is_refused(tmp_path: Path) -> None:
    JobPaths.beside(tmp_path / ("x" * 215)).check()
    with pytest.raises(JobError, match="its name may have at most 215 bytes"):
        JobPaths.beside(tmp_path / ("x" * 216)).check()


def test_written_is_what_lies_on_the_disk(tmp_path: Path) -> None:
    file = open_new(tmp_path / "a")
    assert file.written == Written()
    for text in ("one\n", "zwölf\n"):
        file.append(text)
    content = (tmp_path / "a").read_bytes()
    assert content.decode() == "one\nzwölf\n"
    digest = hashlib.sha256(content).hexdigest()
    assert file.written == Written(len(content), digest)
    file.close()
    again = JobFile(tmp_path / "a", is_read_only=True)
    assert again.read() == file.written
    again.close()


def test_what_was_written_past_the_note_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("noted, lost")
    file = JobFile(tmp_path / "a")
    file.read(5)
    file.cut()
    file.append("!")
    file.sync()
    file.close()
    assert (tmp_path / "a").read_text() == "noted!"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    (tmp_path / "a").symlink_to("mine")
    with pytest.raises(JobError, match="a cannot be written"):
        JobFile(tmp_path / "a")


def test_a_file_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    file = open_new(tmp_path / "a")
    os.replace(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").touch()
    with pytest.raises(JobError, match="was removed or replaced"):
        file.sync()
    file.close()
