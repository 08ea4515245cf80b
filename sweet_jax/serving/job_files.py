"""The files of a prediction job: their names, and what is written to each.

A job writes to no file that it did not make: names that are taken are refused, and
links are not followed.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn

from annotated_types import Ge

from sweet_jax.system.files import show

_BLOCK_BYTES = 1 << 20
# Bytes that the record's temporary name adds: ".NAME.job.json.DIGEST.PID.tmp".
_LONGEST_ENDING = 40
# A whole number of bytes or rows.
Count = Annotated[int, Ge(0)]


class JobError(ValueError):
    """A job cannot run or resume; the message is one line with the reason."""


@dataclasses.dataclass(frozen=True)
class Written:
    """The finished part of a file.

    Attributes:
        bytes: its length, from the beginning of the file.
        sha256: checksum of these bytes, in hex.
    """

    bytes: Count = 0
    sha256: str = hashlib.sha256().hexdigest()


@dataclasses.dataclass(frozen=True)
class JobPaths:
    """The paths of a job's files.

    Attributes:
        output: the predictions.
        rejected: unusable rows, one JSON line each; made when there is one.
        record: the progress.
    """

    output: Path
    rejected: Path
    record: Path

    @classmethod
    def beside(cls, output: Path) -> "JobPaths":
        """Returns the paths that belong to an output."""
        side, record = (
            output.with_name(f"{output.name}.{ending}")
            for ending in ("rejected.jsonl", "job.json")
        )
        return cls(output, side, record)

    def check(self) -> None:
        """Checks that each path is free or may be a file of an earlier job.

        Raises:
            JobError: the output's name is too long, a path exists and is not a regular
                file, or a file exists without the record of a job that made it.
        """
        paths = (self.output, self.rejected, self.record)
        most = os.pathconf(self.output.parent, "PC_NAME_MAX") - _LONGEST_ENDING
        if len(os.fsencode(self.output.name)) > most:
            raise JobError(
                f"--output={show(str(self.output))}: its name may have at most {most}"
                " bytes, since it is part of longer file names; use a shorter name"
            )
        found = [path for path in paths if os.path.lexists(path)]
        for path in found:
            kind = path.lstat().st_mode
            if not stat.S_ISREG(kind):
                what = "a link" if stat.S_ISLNK(kind) else "not a regular file"
                raise JobError(
                    f"{show(str(path))} is {what}, but a job only writes to files that"
                    " it made itself: name another --output"
                )
        if found and self.record not in found:
            refuse(found)

    def list_existing(self) -> str:
        """Returns those of the names that are taken, for a message."""
        existing = (self.output, self.rejected, self.record)
        return " and ".join(show(str(p)) for p in existing if os.path.lexists(p))


class JobFile:
    """A file that a job has made, with a running checksum.

    Attributes:
        path: path of the file.
        written: the part up to the last `read` or `append`.
    """

    def __init__(self, path: Path, is_read_only: bool = False) -> None:
        """Opens a file without following links."""
        self.path = path
        mode = "r" if is_read_only else "r+"
        with explain_failure(path):
            # Unbuffered, so that closing does not retry a write that failed.
            self._file = io.FileIO(str(path), mode, opener=_open_no_link)
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def written(self) -> Written:
        """What is read or written so far."""
        return Written(self._size, self._hash.hexdigest())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, size: int | None = None) -> Written:
        """Reads the first `size` bytes (default: all) and updates `written`."""
        left = self._file.seek(0, os.SEEK_END) if size is None else size
        self._file.seek(0)
        while left and (block := self._file.read(min(left, _BLOCK_BYTES))):
            self._hash.update(block)
            self._size += len(block)
            left -= len(block)
        return self.written

    def cut(self) -> None:
        """Cuts off anything that a killed process wrote after its last record."""
        with explain_failure(self.path):
            self._file.truncate(self._size)
            self._file.seek(self._size)

    def append(self, text: str) -> None:
        """Writes at the end."""
        data = text.encode()
        left = memoryview(data)
        with explain_failure(self.path):
            while left:
                left = left[self._file.write(left) :]
        self._hash.update(data)
        self._size += len(data)

    def sync(self) -> None:
        """Waits until the file is on the disk; its path must still be this file."""
        with explain_failure(self.path):
            os.fsync(self._file.fileno())
        if not is_in_place(self._file, self.path):
            raise JobError(
                f"{show(str(self.path))} was removed or replaced while it was written:"
                " name another --output"
            )


@contextlib.contextmanager
def explain_failure(path: Path) -> Iterator[None]:
    """Turns an OSError into a JobError whose one line names the file."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise JobError(
            f"{show(str(path))} cannot be written ({error.strerror}): solve this and"
            " run the same command again, which goes on from there"
        ) from error


def refuse(paths: list[Path]) -> NoReturn:
    """Raises JobError over files that are not of this job."""
    names = " and ".join(show(str(path)) for path in paths)
    is_one = len(paths) == 1
    raise JobError(
        f"{names} {'exists and is' if is_one else 'exist and are'} not of this command:"
        f" name another --output, or move {'it' if is_one else 'them'} away"
    )


def is_in_place(file: IO[Any], path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)
