"""The record of a folder: any change is seen, another size without reading."""

import os
import time

import pytest

from sweet_jax.system import checksums
from sweet_jax.system.files import FileError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "params").write_bytes(b"weights")
    (tmp_path / "bank").write_bytes(b"logits")
    checksums.record(tmp_path, "bank", "model")
    return tmp_path


@pytest.mark.parametrize("name", ["bank", "model/params"])
@pytest.mark.parametrize("content", [b"", b"other!", b"weightt", b"longer than before"])
def test_a_changed_file_is_no_longer_intact(folder, name, content):
    assert checksums.find_intact(folder, ["bank", "model"]) == {"bank", "model"}
    (folder / name).write_bytes(content)
    changed = name.split("/")[0]
    assert changed not in checksums.find_intact(folder, ["bank", "model"])
    with pytest.raises(FileError, match=f"{changed} was altered or damaged: copy"):
        checksums.check_recorded(folder, changed, "copy it again")


@pytest.mark.parametrize("name", ["bank", "model/params"])
def test_a_file_of_another_size_is_not_read(folder, name):
    os.truncate(folder / name, 1 << 40)  # It takes no space: it has no blocks.
    start = time.perf_counter()
    assert len(checksums.find_intact(folder, ["bank", "model"])) == 1
    assert time.perf_counter() - start < 1


def test_a_new_file_in_a_folder_is_a_change(folder):
    (folder / "model" / "extra").touch()
    assert checksums.find_intact(folder, ["model"]) == frozenset()


def test_a_text_is_recorded_as_its_file_would_be(folder):
    (folder / "config").write_text("grün")
    checksums.record(folder, "config")
    marks = checksums.read_checksums(folder)
    assert marks["config"] == checksums.mark_text("grün")
    assert checksums.is_as_recorded(folder / "config", marks["config"])
