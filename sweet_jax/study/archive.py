"""The archive of a study: a .zip with the files for aggregation, without weights.

Equal studies give equal bytes. An archive may come from an untrusted source: only files
that belong to a study are extracted, their sizes are limited, and links are refused.
"""

import contextlib
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sweet_jax.study import cells
from sweet_jax.study.folder import CELL_NAME, PLAN, READ_FILES, REMEDY, StudyError
from sweet_jax.system.checksums import FILE_NAME, check_recorded
from sweet_jax.system.files import (
    COPY_AGAIN,
    FileError,
    check_file,
    explain_damage,
    read_bytes,
    show,
    write_folder,
    write_whole,
)

SUFFIX = ".zip"
# Files of a cell: results and banks for aggregation, checksums, and settings.
_CELL_FILES = (
    cells.STATUS,
    FILE_NAME,
    "config.json",
    *READ_FILES,
    "gradient_conflict.json",
)
_NAME = re.compile(
    rf"{re.escape(PLAN)}|cells/(?P<cell>{CELL_NAME})/"
    rf"({'|'.join(map(re.escape, _CELL_FILES))})"
)
_MOST_BYTES = 1 << 30  # All files together.
_MOST_FILE_BYTES = 1 << 28
_MODE = stat.S_IFREG | 0o644
_MADE_BY = "make it with sweet-jax study FOLDER --keep ARCHIVE.zip"


def open_study(path: Path) -> Path:
    """Returns the folder of a study, after unpacking it if `path` is an archive.

    Args:
        path: a folder, or `NAME.zip`, which is unpacked to `NAME` if that is missing.

    Raises:
        StudyError: the file is not an archive of a study, or `NAME` has other contents.
        FileError: the archive is damaged.
    """
    if not path.is_file():
        return path
    if path.suffix != SUFFIX:
        raise StudyError(
            f"{path} is a file: give the folder of a study, or its archive NAME{SUFFIX}"
        )
    folder = path.with_suffix("")
    with _read_archive(path) as (archive, members):
        contents = (
            (name, _read_member(path, archive, member))
            for name, member in members.items()
        )
        if not folder.exists():
            with write_folder(folder) as temporary:
                for name, content in contents:
                    file = temporary / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
        elif _list_cells(folder) != _list_cells_of(members) or any(
            not (folder / name).is_file() or _read(folder / name) != content
            for name, content in contents
        ):
            raise StudyError(
                f"{folder} differs from the contents of {path}: move one of the two"
                f" away, or give {folder} itself"
            )
    return folder


def write_archive(folder: Path, target: Path) -> None:
    """Writes the plan and the small files of a study's finished cells to an archive.

    Args:
        folder: folder of the study.
        target: `NAME.zip`; an earlier archive is replaced if all its cells are here.

    Raises:
        StudyError: there is no plan, or `target` is another file, or has cells that
            would be lost.
        FileError: a file of a cell is damaged.
    """
    if not (folder / PLAN).is_file():
        raise StudyError(f"{folder} has no plan.json: give the folder of a study")
    if target.suffix != SUFFIX:
        raise StudyError(f"--keep={target}: give a name that ends in {SUFFIX}")
    names = [PLAN]
    for cell in sorted(_list_cells(folder)):
        path = folder / "cells" / cell
        if not cells.is_finished(path):
            continue
        kept = [name for name in sorted(_CELL_FILES) if (path / name).is_file()]
        for name in {"config.json", *READ_FILES}.intersection(kept):
            check_recorded(path, name, REMEDY)
        names += [f"cells/{cell}/{name}" for name in kept]
    _check_sizes(folder, [(folder / name).stat().st_size for name in names])
    _check_target(target, names)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        write_whole(target) as temporary,
        zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9
        ) as archive,
    ):
        for name in names:
            # ZipInfo sets a fixed time, so the bytes depend on the content only.
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system, member.external_attr = 3, _MODE << 16
            archive.writestr(member, _read(folder / name))


def _check_target(target: Path, names: list[str]) -> None:
    """Raises StudyError if `target` must not be overwritten."""
    if not target.exists():
        return
    try:
        with _read_archive(target) as (_, members):
            lost = sorted(_list_cells_of(members) - _list_cells_of(names))
    except (FileError, StudyError) as error:
        raise StudyError(
            f"--keep={target} exists and is not an archive of a study: name another"
            " file"
        ) from error
    if lost:
        raise StudyError(
            f"--keep={target} holds {len(lost)} cells that are not finished here, such"
            f" as {show(lost[0])}: name another file"
        )


@contextlib.contextmanager
def _read_archive(
    path: Path,
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Opens an archive; yields it with its files by name, their contents unchecked."""
    check_file(path, COPY_AGAIN, _MOST_BYTES)
    with explain_damage(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive, _find_members(path, archive)


def _find_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        shown = show(name[:200])
        if member.is_dir():
            continue
        if not _NAME.fullmatch(name):
            raise StudyError(f"{path} holds {shown}, not a study file: {_MADE_BY}")
        if name in members:
            raise StudyError(f"{path} holds {shown} twice: {_MADE_BY}")
        if kind not in (0, stat.S_IFREG):
            raise StudyError(f"{path}: {shown} is not a regular file: {_MADE_BY}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise StudyError(f"{path}: {shown} is not deflated: {_MADE_BY}")
        members[name] = member
    if PLAN not in members:
        raise StudyError(f"{path} holds no {PLAN}: {_MADE_BY}")
    _check_sizes(path, [member.file_size for member in members.values()])
    return members


def _check_sizes(path: Path, sizes: Sequence[int]) -> None:
    """Raises StudyError if the files are too large for an archive."""
    if sum(sizes) > _MOST_BYTES or max(sizes) > _MOST_FILE_BYTES:
        raise StudyError(
            f"{path}: its files have {sum(sizes)} bytes, the largest {max(sizes)}; an"
            f" archive may hold {_MOST_BYTES}, {_MOST_FILE_BYTES} in a file: copy the"
            " study's folder instead"
        )


def _read_member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> bytes:
    """Returns the content of a file in an archive, at most of the listed size."""
    with explain_damage(path):  # Encrypted, cut short, another checksum, ...
        return archive.read(member)


def _read(path: Path) -> bytes:
    return read_bytes(path, most_bytes=_MOST_FILE_BYTES)


def _list_cells(folder: Path) -> set[str]:
    """Returns the names of the cells of a folder that have ended."""
    return {path.parent.name for path in folder.glob(f"cells/*/{cells.STATUS}")}


def _list_cells_of(names: Iterable[str]) -> set[str]:
    """Returns the names of the cells to which files of an archive belong."""
    return {name.split("/")[1] for name in names if name != PLAN}
