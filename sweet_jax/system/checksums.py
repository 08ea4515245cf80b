"""checksums.json: what the files of a folder were when they were written.

A folder that is written once, such as the checkpoint of a step, lists every file that
it holds. A work directory lists the files that later commands read, each as it becomes
final; one that differs, or is not listed, is no file of the run. It lists sizes, too:
another size needs no reading, however large the file.

A JSON file that changes while others do not carries its own checksum instead: a process
killed between the two writes would leave a file without a valid one.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from sweet_jax.system.files import (
    COPY_AGAIN,
    FileError,
    check_file,
    hash_file,
    read_object,
    show,
    write_json,
)

FILE_NAME = "checksums.json"
_SEAL = "sha256"
# A sha256; in a work directory also a number of bytes.
_MARK = r"[0-9a-f]{64}(:[0-9]{1,18})?"


def hash_folder(folder: Path) -> dict[str, str]:
    """Returns name -> sha256 of every file below a folder, but for checksums.json."""
    found = (file for file in folder.rglob("*") if file.is_file())
    names = sorted(file.relative_to(folder).as_posix() for file in found)
    return {name: hash_file(folder / name) for name in names if name != FILE_NAME}


def write_checksums(folder: Path) -> None:
    """Writes checksums.json of a folder that is written once: of every other file."""
    _write(folder, hash_folder(folder))


def read_checksums(folder: Path, remedy: str = COPY_AGAIN) -> dict[str, str]:
    """Reads checksums.json.

    Args:
        folder: that has it.
        remedy: what the person can do about a damaged file, for the message.

    Raises:
        FileError: it is missing or damaged, or lists nothing.
    """
    path = folder / FILE_NAME
    checksums = read_object(path, remedy)
    for name, digest in checksums.items():
        if not isinstance(digest, str) or not re.fullmatch(_MARK, digest):
            raise FileError(
                f"{path} is damaged (no sha256 of {show(name[:80])}): {remedy}"
            )
    if not checksums:
        raise FileError(f"{path} lists no file: {remedy}")
    return checksums


def check_folder(
    folder: Path,
    needed: Collection[str],
    remedy: str = COPY_AGAIN,
    most_bytes: int | None = None,
) -> None:
    """Checks that a folder holds the files that its checksums.json lists, and no more.

    Args:
        folder: written once, as a whole.
        needed: names that must be among them.
        remedy: what the person can do about a damaged file, for the message.
        most_bytes: a larger file is refused before it is read; None: none is.

    Raises:
        FileError: checksums.json is damaged, or a file is missing, altered or extra.
    """
    checksums = read_checksums(folder, remedy)
    if most_bytes is not None:
        for file in folder.rglob("*"):
            check_file(file, remedy, most_bytes)
    found = hash_folder(folder)
    for name in sorted({*checksums, *found, *needed}):
        # Names are of the folder itself, or harmless: only what lies there was opened.
        path = f"{folder}/{show(name[:200])}"
        if name not in found:
            raise FileError(f"{path} is missing: {remedy}")
        if name not in checksums:
            raise FileError(f"{path} is not in {FILE_NAME}: {remedy}")
        if checksums[name] != found[name]:
            raise FileError(f"{path} was altered or damaged: {remedy}")


def check_recorded(folder: Path, name: str, remedy: str) -> None:
    """Checks that a file or folder of a work directory is as it was recorded.

    Raises:
        FileError: it is missing, altered or was never recorded.
    """
    path, checksums = folder / name, read_checksums(folder, remedy)
    if not path.is_dir():
        check_file(path, remedy)
    if name not in checksums:
        raise FileError(f"{path} is not in {FILE_NAME}: {remedy}")
    if not is_as_recorded(path, checksums[name]):
        raise FileError(f"{path} was altered or damaged: {remedy}")


def find_recorded(folder: Path, names: Iterable[str]) -> frozenset[str]:
    """Returns those of some files and folders that are recorded, whatever they are."""
    return frozenset(_read_recorded(folder)).intersection(names)


def find_intact(folder: Path, names: Iterable[str]) -> frozenset[str]:
    """Returns those of some files and folders that are as they were recorded."""
    recorded = _read_recorded(folder)
    return frozenset(
        name
        for name in recorded.keys() & set(names)
        if (folder / name).exists() and is_as_recorded(folder / name, recorded[name])
    )


def record(folder: Path, *names: str) -> None:
    """Adds files and folders, or what they are now, to a work directory's record."""
    added = {name: _make_mark(folder / name) for name in names}
    _write(folder, _read_recorded(folder) | added)


def forget(folder: Path, kept: Collection[str]) -> None:
    """Removes all but some names from a work directory's record."""
    recorded = _read_recorded(folder)
    _write(folder, {k: v for k, v in recorded.items() if k in kept})


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object with its own checksum, whole or not at all."""
    write_json(path, {**content, _SEAL: _hash_json(content)})


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Reads what `write_sealed` wrote, without the checksum.

    Raises:
        FileError: the file is missing or damaged.
    """
    content = read_object(path, remedy)
    if content.pop(_SEAL, None) != _hash_json(content):
        raise FileError(f"{path} was altered or damaged: {remedy}")
    return content


def is_as_recorded(path: Path, mark: str) -> bool:
    """Whether a file or folder is what `record` noted of it."""
    _, _, num_bytes = mark.partition(":")
    if num_bytes and _count_bytes(path) != int(num_bytes):
        return False
    return _make_mark(path).startswith(mark)


def mark_text(text: str) -> str:
    """Returns what `record` would note of a file with this text."""
    data = text.encode()
    return f"{hashlib.sha256(data).hexdigest()}:{len(data)}"


def _make_mark(path: Path) -> str:
    """Returns the sha256 and size of a file, or of all that is in a folder."""
    if path.is_dir():
        names = (file.relative_to(path).as_posix() for file in _list_files(path))
        digest = _hash_json([(name, hash_file(path / name)) for name in names])
    else:
        digest = hash_file(path)
    return f"{digest}:{_count_bytes(path)}"


def _count_bytes(path: Path) -> int:
    files = _list_files(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _list_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_recorded(folder: Path) -> dict[str, str]:
    """Returns what is recorded; nothing where it cannot be read."""
    try:
        return read_checksums(folder)
    except FileError:
        return {}


def _write(folder: Path, checksums: dict[str, str]) -> None:
    write_json(folder / FILE_NAME, checksums)
