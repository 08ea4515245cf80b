"""Small files: strict and bounded reading, whole writing."""

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Annotated

import pydantic
import pytest

from sweet_jax.system.files import (
    FileError,
    explain_damage,
    list_differences,
    read_as,
    read_bytes,
    read_json,
    read_object,
    show,
    take_lock,
    write_bytes,
    write_folder,
    write_json,
    write_whole,
)


@dataclasses.dataclass(frozen=True)
class _Point:
    name: str
    scales: tuple[Annotated[float, pydantic.Field(gt=0)], ...]
    count: int = 1


def _write(folder: Path, text: str) -> Path:
    path = folder / "a.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "is damaged"),
        ('{"a": NaN}', "NaN is not valid JSON"),
        ('{"a": -Infinity}', "-Infinity is not valid JSON"),
        ('{"a": 1e999}', "too large"),
        ("", "is damaged"),
    ],
)
def test_json_that_is_none_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FileError, match=reason) as error:
        read_json(_write(tmp_path, text))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "not a regular file"), ("gone", "is missing")):
        with pytest.raises(FileError, match=reason):
            read_bytes(tmp_path / name)
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with pytest.raises(FileError, match="not a regular file"):
        read_bytes(tmp_path / "zeros")


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(FileError, match="has 1099511627776 bytes"):
        read_bytes(tmp_path / "large")


def test_a_schema_converts_what_json_has_no_type_for(tmp_path: Path) -> None:
    path = _write(tmp_path, '{"name": "a", "scales": [1, 0.5], "later": {}}')
    assert read_as(path, _Point) == _Point("a", (1.0, 0.5))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"scales": []}', r"name: Field required"),
        ('{"name": 5, "scales": []}', r"name: Input should be a valid string"),
        ('{"name": "a", "scales": [1, 0]}', r"scales.1: .*greater than 0"),
        ('{"name": "a", "scales": [], "count": "2"}', r"count: .*integer"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_field_outside_of_the_schema_is_named(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(FileError, match=reason):
        read_as(_write(tmp_path, text), _Point)


def test_a_newer_schema_says_what_to_do(tmp_path: Path) -> None:
    path = _write(tmp_path, '{"schema": 3}')
    with pytest.raises(FileError, match="reads up to 2: update sweet_jax"):
        read_as(path, _Point, schema=2)
    for text in ("{}", '{"schema": true}', '{"schema": "1"}', '{"schema": 0}'):
        with pytest.raises(FileError, match="it has no schema"):
            read_as(_write(tmp_path, text), _Point, schema=2)


def test_an_object_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a JSON object: take another"):
        read_object(_write(tmp_path, "[1]"), "take another")


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), write_whole(path) as temporary:
        fail(temporary)
    assert read_json(path) == {"a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_half_of_a_pair_comes_back(tmp_path: Path) -> None:
    value = {"path": os.fsdecode(b"caf\xe9"), "text": "日\ud800"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_a_full_disk_is_named() -> None:
    error = OSError(28, "No space left on device")
    with (
        pytest.raises(OSError, match=r"/dev/shm/never"),
        write_whole(Path("/dev/shm/never")),
    ):
        raise error


def test_a_folder_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    (tmp_path / ".a.tmp").mkdir()  # Of a process that was killed.
    for content in ("first", "second"):
        with write_folder(path) as folder:
            (folder / "file").write_text(content)
        assert (path / "file").read_text() == content
    with pytest.raises(OSError, match="No space") as error, write_folder(path):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(path)
    assert (path / "file").read_text() == "second"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_rust_says_of_a_full_disk_is_an_error_of_the_system(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    with pytest.raises(OSError, match="No space left") as error, write_whole(path):
        raise RuntimeError("Error: I/O error (os error 28)")
    assert (error.value.errno, error.value.filename) == (28, str(path))


def test_written_files_have_the_mode_of_new_ones(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with write_whole(tmp_path / "a") as temporary:
            temporary.touch(mode=0o600)
        write_bytes(tmp_path / "b", b"")
    finally:
        os.umask(previous)
    for name in "ab":
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    first = take_lock(tmp_path / "lock")
    assert first is not None
    assert take_lock(tmp_path / "lock") is None
    first.close()
    second = take_lock(tmp_path / "lock")
    assert second is not None
    second.close()


def test_a_terminal_gets_no_control_characters() -> None:
    assert show("a\x1b[31m\r\n\x9b\u202e\ud800é日👩\u200d🔬") == (
        r"a\x1b[31m\r\n\x9b\u202e\ud800é日👩" + "\u200d🔬"
    )


def test_differences_are_listed_by_name() -> None:
    old, new = {"a": 1, "b": "x", "c": None}, {"a": 1, "b": "y", "d": 2}
    assert list_differences(old, new) == [
        "b was 'x', now 'y'",
        "c was None, now (none)",
        "d was (none), now 2",
    ]
    assert not list_differences(old, old)


def test_what_a_library_raises_over_a_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"none")
    with (
        pytest.raises(FileError, match=r"a\.zip is damaged \(File is not a zip file\)"),
        explain_damage(path),
    ):
        zipfile.ZipFile(path)
    with (
        pytest.raises(FileError, match=r"b\.zip cannot be read \(No such file"),
        explain_damage(path.with_name("b.zip")),
    ):
        zipfile.ZipFile(path.with_name("b.zip"))


@pytest.mark.parametrize("bug", [TypeError, AttributeError, NameError, AssertionError])
def test_a_bug_of_ours_is_no_damage(tmp_path: Path, bug: type[Exception]) -> None:
    with pytest.raises(bug, match="ours"), explain_damage(tmp_path):
        raise bug("ours")
