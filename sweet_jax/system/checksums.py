"""checksums.json: the checksums of a folder's files.

A folder that is written once, such as a checkpoint, lists all of its files. A work
directory lists the files that later commands read, each once it is final; a file that
differs or is not listed does not belong to the run. A work directory also lists sizes,
so that a file of another size is rejected without reading it.

A JSON file that changes during a run contains its own checksum instead: a process
killed between writing the file and checksums.json would leave the two in disagreement.
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
# A sha256; in a work directory followed by the number of bytes.
_MARK = r"[0-9a-f]{64}(:[0-9]{1,18})?"


def hash_folder(folder: Path) -> dict[str, str]:
    """Returns name -> sha256 of every file below a folder, except checksums.json."""
    found = (file for file in folder.rglob("*") if file.is_file())
    names = sorted(file.relative_to(folder).as_posix() for file in found)
    return {name: hash_file(folder / name) for name in names if name != FILE_NAME}


def write_checksums(folder: Path) -> None:
    """Writes checksums.json of a folder that is written once: of every other file."""
    _write(folder, hash_folder(folder))


def read_checksums(folder: Path, remedy: str = COPY_AGAIN) -> dict[str, str]:
    """Reads checksums.json.

    Args:
        folder: the folder that contains it.
        remedy: what the user should do about a bad file, for the error message.

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
    """Checks that a folder contains exactly the files that its checksums.json lists.

    Args:
        folder: a folder that was written once, as a whole.
        needed: names that must be listed.
        remedy: what the user should do about a bad file, for the error message.
        most_bytes: a larger file is refused before it is read; None: no limit.

    Raises:
        FileError: checksums.json is damaged, or a file is missing, altered or extra.
    """
    checksums = read_checksums(folder, remedy)
    if most_bytes is not None:
        for file in folder.rglob("*"):
            check_file(file, remedy, most_bytes)
    found = hash_folder(folder)
    for name in sorted({*checksums, *found, *needed}):
        # A hostile name in checksums.json does no harm: only files found in the folder
        # were opened.
        path = f"{folder}/{show(name[:200])}"
        if name not in found:
            raise FileError(f"{path} is missing: {remedy}")
        if name not in checksums:
            raise FileError(f"{path} is not in {FILE_NAME}: {remedy}")
        if checksums[name] != found[name]:
            raise FileError(f"{path} was altered or damaged: {remedy}")


def check_recorded(folder: Path, name: str, remedy: str) -> None:
    """Checks that a file or folder of a work directory matches its record.

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
    """Returns the given names that are recorded, whether or not they still match."""
    return frozenset(_read_recorded(folder)).intersection(names)


def find_intact(folder: Path, names: Iterable[str]) -> frozenset[str]:
    """Returns the given names whose files or folders match their record."""
    recorded = _read_recorded(folder)
    return frozenset(
        name
        for name in recorded.keys() & set(names)
        if (folder / name).exists() and is_as_recorded(folder / name, recorded[name])
    )


def record(folder: Path, *names: str) -> None:
    """Records the present content of files and folders of a work directory."""
    added = {name: _make_mark(folder / name) for name in names}
    _write(folder, _read_recorded(folder) | added)


def forget(folder: Path, kept: Collection[str]) -> None:
    """Removes all names except `kept` from a work directory's record."""
    recorded = _read_recorded(folder)
    _write(folder, {k: v for k, v in recorded.items() if k in kept})


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON object that contains its own checksum, atomically."""
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
    """Whether a file or folder matches the mark that `record` wrote for it."""
    _, _, num_bytes = mark.partition(":")
    if num_bytes and _count_bytes(path) != int(num_bytes):
        return False
    return _make_mark(path).startswith(mark)


def mark_text(text: str) -> str:
    """Returns the mark that `record` would write for a file with this text."""
    data = text.encode()
    return f"{hashlib.sha256(data).hexdigest()}:{len(data)}"


def _make_mark(path: Path) -> str:
    """Returns the mark (sha256 and size) of a file or of a folder's content."""
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
    """Returns the record, name -> mark; empty if it cannot be read."""
    try:
        return read_checksums(folder)
    except FileError:
        return {}


def _write(folder: Path, checksums: dict[str, str]) -> None:
    write_json(folder / FILE_NAME, checksums)
