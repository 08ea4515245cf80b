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
# Of the record's temporary file: ".NAME.job.json.DIGEST.PID.tmp".
_LONGEST_ENDING = 40
# A whole number of bytes or rows.
Count = Annotated[int, Ge(0)]


class JobError(ValueError):
    """A job cannot be run or gone on with: one line that says why."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What of a file is done.

    Attributes:
        bytes: from its beginning.
        sha256: of these bytes, in hex.
    """

    bytes: Count = 0
    sha256: str = hashlib.sha256().hexdigest()


@dataclasses.dataclass(frozen=True)
class JobPaths:
    """The names of a job's files.

    Attributes:
        output: the answers.
        rejected: rows that could not be used, a JSON line each; made for the first one.
        record: the progress.
    """

    output: Path
    rejected: Path
    record: Path

    @classmethod
    def beside(cls, output: Path) -> "JobPaths":
        """Returns the names that belong to an output."""
        side, record = (
            output.with_name(f"{output.name}.{ending}")
            for ending in ("rejected.jsonl", "job.json")
        )
        return cls(output, side, record)

    def check(self) -> None:
        """Checks that each name is free, or may be that of a job's file.

        Raises:
            JobError: the output's name is too long; a name is taken by what is no
                regular file; or there is a file, but no record of a job that made it.
        """
        paths = (self.output, self.rejected, self.record)
        most = os.pathconf(self.output.parent, "PC_NAME_MAX") - _LONGEST_ENDING
        if len(os.fsencode(self.output.name)) > most:
            raise JobError(
                f"--output={show(str(self.output))}: its name may have {most} bytes at"
                " most, since names of further files begin with it"
            )
        found = [path for path in paths if os.path.lexists(path)]
        for path in found:
            kind = path.lstat().st_mode
            if not stat.S_ISREG(kind):
                what = "a link" if stat.S_ISLNK(kind) else "not a regular file"
                raise JobError(
                    f"{show(str(path))} is {what}, and a job writes to files of its own"
                    " only: name another --output"
                )
        if found and self.record not in found:
            refuse(found)

    def list_existing(self) -> str:
        """Returns those of the names that are taken, for a message."""
        existing = (self.output, self.rejected, self.record)
        return " and ".join(show(str(p)) for p in existing if os.path.lexists(p))


class JobFile:
    """A file that a job has made, with a checksum of what is written.

    Attributes:
        path: of the file.
        written: up to the last `read` or `append`.
    """

    def __init__(self, path: Path, is_read_only: bool = False) -> None:
        """Opens a file; a link is not followed."""
        self.path = path
        mode = "r" if is_read_only else "r+"
        with explain_failure(path):
            # Unbuffered: a buffer would be written once more when a file is closed
            # that could not be written.
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
        """Reads the first `size` bytes, by default all, which count as written."""
        left = self._file.seek(0, os.SEEK_END) if size is None else size
        self._file.seek(0)
        while left and (block := self._file.read(min(left, _BLOCK_BYTES))):
            self._hash.update(block)
            self._size += len(block)
            left -= len(block)
        return self.written

    def cut(self) -> None:
        """Cuts off what a killed process wrote past what it recorded."""
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
        """Waits until all is on the disk, under the name it was opened by."""
        with explain_failure(self.path):
            os.fsync(self._file.fileno())
        if not is_in_place(self._file, self.path):
            raise JobError(
                f"{show(str(self.path))} was removed or replaced while it was written:"
                " name another --output"
            )


@contextlib.contextmanager
def explain_failure(path: Path) -> Iterator[None]:
    """Turns what the system says of a file into a line that names it."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise JobError(
            f"{show(str(path))} cannot be written ({error.strerror}): the same command"
            " goes on once that is mended"
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
