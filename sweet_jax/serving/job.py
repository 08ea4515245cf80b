"""A prediction job: a stream of inputs to a file of answers, resumable.

Inputs are answered in chunks of a fixed number of rows, each by itself, so that an
answer depends on its chunk alone: a job that was killed and goes on writes what it
would have written. After each chunk OUTPUT.job.json records what is done; whatever a
killed process wrote past it is cut off.

A job writes to no file that it did not make. The record is made first, and only where
no file is; it names the files that the job has made, with their lengths and checksums.
Any other file under one of the three names is refused before anything is written.
"""

import contextlib
import dataclasses
import glob
import hashlib
import io
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import quote_from_bytes

from pydantic import NonNegativeInt

from sweet_jax.serving.inputs import InputRow
from sweet_jax.system.files import (
    FileError,
    list_differences,
    read_as,
    show,
    take_lock,
    write_whole,
)

SCHEMA = 1
_BLOCK_BYTES = 1 << 20
# Of the record's temporary file: ".NAME.job.json.DIGEST.PID.tmp".
_LONGEST_ENDING = 40


class JobError(ValueError):
    """A job cannot be run or gone on with: one line that says why."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What of a file is done.

    Attributes:
        bytes: from its beginning.
        sha256: of these bytes, in hex.
    """

    bytes: NonNegativeInt = 0
    sha256: str = hashlib.sha256().hexdigest()


@dataclasses.dataclass(frozen=True)
class Progress:
    """What of a job is done.

    Attributes:
        settings: all that the answers depend on, the input aside.
        files: name -> what is done of it, for each file that the job has made.
        input_digest: of the rows that are done, chained from chunk to chunk.
        rows: of the input that are done, rejected ones included.
        rejected: of these, those that could not be used.
        finished: nothing is left.
    """

    settings: dict[str, Any]
    files: dict[str, Written] = dataclasses.field(default_factory=dict)
    input_digest: str = ""
    rows: NonNegativeInt = 0
    rejected: NonNegativeInt = 0
    finished: bool = False


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
            _refuse(found)


class Job:
    """The files of a job, locked against other processes until `close`.

    Attributes:
        paths: of its files.
        progress: what is done.
    """

    def __init__(self, output: Path, settings: dict[str, Any], chunk_rows: int) -> None:
        """Opens a new job, or one of the same settings.

        Args:
            output: where answers go.
            settings: plain values that the answers depend on, the input aside.
            chunk_rows: answered together.

        Raises:
            JobError: a file is another job's, no job's, damaged, or being written.
        """
        self.paths = JobPaths.beside(output)
        self._chunk_rows = chunk_rows
        # As it comes back from a file: tuples are lists there.
        self._settings = json.loads(json.dumps(settings | {"chunk_rows": chunk_rows}))
        content = json.dumps(self._settings).encode()
        self._digest = hashlib.sha256(content).hexdigest()[:8]
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as on_error:
            on_error.push(self._open)
            self.paths.check()
            if not self.paths.record.exists():
                with contextlib.suppress(FileExistsError):  # Another process did.
                    self._save(Progress(self._settings), is_new=True)
            self.progress = self._read_record()
            if not self.progress.finished:  # One that is may be read-only.
                self._lock()
                # What another process did until it released the lock.
                self.progress = self._read_record()
            self._files = {
                path: self._open_file(path, self.progress.files[_quote(path)])
                for path in (self.paths.output, self.paths.rejected)
                if _quote(path) in self.progress.files
            }
            on_error.pop_all()

    def close(self) -> None:
        """Closes the files and releases the lock."""
        self._open.close()

    def run(
        self,
        rows: Iterable[InputRow],
        answer: Callable[[list[InputRow]], str],
        header: str,
        strict: bool,
        on_chunk: Callable[[int], None],
    ) -> None:
        """Answers what is left.

        Args:
            rows: of the whole input; those that are done are compared and skipped.
            answer: usable rows -> the lines of their answers.
            header: how the output begins.
            strict: a row that cannot be used stops the job.
            on_chunk: called after each chunk with the number of rows that are done.

        Raises:
            JobError: the input is another one; a file cannot be written; or `strict`,
                and a row cannot be used: what was answered stays.
        """
        iterator = iter(rows)
        self._skip(iterator, on_chunk)
        if self.progress.finished:
            return
        for file in self._files.values():
            file.cut()
        out = self._find_or_make(self.paths.output)
        while chunk := list(itertools.islice(iterator, self._chunk_rows)):
            bad = [row for row in chunk if row.problem]
            if bad and strict:
                raise JobError(f"line {bad[0].line} {bad[0].problem}")
            text = answer([row for row in chunk if not row.problem])
            if not self.progress.rows:
                text = header + text
            out.append(text)
            if bad:
                self._find_or_make(self.paths.rejected).append(_format_problems(bad))
            self._note(chunk, len(bad))
            on_chunk(self.progress.rows)
        self._save(dataclasses.replace(self.progress, finished=True))

    def _read_record(self) -> Progress:
        """Returns what is done, after comparing it with the files that there are.

        Raises:
            JobError: a file is not this job's.
        """
        paths = self.paths
        remedy = f"name another --output, or move {_list_existing(paths)} away"
        try:
            progress = read_as(paths.record, Progress, SCHEMA, remedy)
        except FileError as error:
            raise JobError(str(error)) from error
        if differences := list_differences(progress.settings, self._settings):
            raise JobError(
                f"--output={show(str(paths.output))} holds answers of other settings:"
                f" {'; '.join(differences)}: {remedy}"
            )
        own = {_quote(path): path for path in (paths.output, paths.rejected)}
        if others := progress.files.keys() - own.keys():
            raise JobError(
                f"{show(str(paths.record))} is of another output: it names"
                f" {', '.join(sorted(others))}: {remedy}"
            )
        for name, path in own.items():
            size = path.lstat().st_size if os.path.lexists(path) else None
            written = progress.files.get(name)
            if written is not None and (size is None or size < written.bytes):
                found = "is missing" if size is None else f"has {size} bytes"
                raise JobError(
                    f"{show(str(path))} {found}, {written.bytes} bytes were written:"
                    f" {remedy}"
                )
            # An empty one is what a process leaves that is killed after making it.
            if written is None and size and not progress.finished:
                _refuse([path])
        return progress

    def _lock(self) -> None:
        """Locks the output, made where it is not yet, against other processes."""
        output = self.paths.output
        with _explain_failure(output):
            lock = take_lock(output)
        if lock is not None:
            self._open.enter_context(lock)
        if lock is None or not _is_in_place(lock, output):
            raise JobError(
                f"another process writes to --output={show(str(output))}: wait for it,"
                " or name another"
            )
        record = self.paths.record
        pattern = f".{glob.escape(record.name)}.{self._digest}.*.tmp"
        for temporary in record.parent.glob(pattern):
            temporary.unlink()  # Of this job, killed while it wrote the record.

    def _open_file(self, path: Path, written: Written) -> "_JobFile":
        """Opens a file that the job has made, and compares it with what was written."""
        file = _JobFile(path, is_read_only=self.progress.finished)
        self._open.callback(file.close)
        if file.read(written.bytes) != written:
            raise JobError(
                f"{show(str(path))} is not as it was written: name another --output, or"
                f" move {_list_existing(self.paths)} away"
            )
        return file

    def _find_or_make(self, path: Path) -> "_JobFile":
        """Returns an open file; makes and records it before anything is written."""
        if path not in self._files:
            with _explain_failure(path), contextlib.suppress(FileExistsError):
                path.open("xb").close()
            file = _JobFile(path)
            self._open.callback(file.close)
            if file.read() != Written():
                _refuse([path])
            self._files[path] = file
            # No more than that it is there: rows of this chunk may be in the output.
            files = self.progress.files | {_quote(path): Written()}
            self._save(dataclasses.replace(self.progress, files=files))
        return self._files[path]

    def _skip(self, rows: Iterator[InputRow], on_chunk: Callable[[int], None]) -> None:
        """Reads past the rows that are done, in the chunks in which they were."""
        skipped, digest = 0, ""
        while skipped < self.progress.rows:
            size = min(self._chunk_rows, self.progress.rows - skipped)
            chunk = list(itertools.islice(rows, size))
            if not chunk:
                break
            skipped, digest = skipped + len(chunk), _chain(digest, chunk)
            on_chunk(skipped)
        is_same = digest == self.progress.input_digest
        if not is_same or (self.progress.finished and next(rows, None) is not None):
            raise JobError(
                f"the input is not what --output={show(str(self.paths.output))} was"
                f" begun with: of that, {self.progress.rows} rows are answered; name"
                " another --output"
            )

    def _note(self, chunk: list[InputRow], rejected: int) -> None:
        """Records what is done, after it is on the disk."""
        for file in self._files.values():
            file.sync()
        done = dataclasses.replace(
            self.progress,
            files={_quote(path): file.written for path, file in self._files.items()},
            input_digest=_chain(self.progress.input_digest, chunk),
            rows=self.progress.rows + len(chunk),
            rejected=self.progress.rejected + rejected,
        )
        self._save(done)

    def _save(self, progress: Progress, is_new: bool = False) -> None:
        """Writes the record; a new one only where no file is (FileExistsError)."""
        self.progress = progress  # First: a stop reports what the record may hold.
        path = self.paths.record
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(progress)}, indent=1)
        with (
            _explain_failure(path),
            write_whole(path, f"{self._digest}.") as temporary,
            temporary.open("x", encoding="utf-8") as file,
        ):
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
            if is_new:
                _link(temporary, path)


def read_settings(output: Path) -> dict[str, Any]:
    """Returns the settings of the job that an output was begun by; {}: of none."""
    try:
        return read_as(JobPaths.beside(output).record, Progress, SCHEMA).settings
    except FileError:
        return {}


class _JobFile:
    """A file that a job has made, with a checksum of what is written.

    Attributes:
        path: of the file.
        written: up to the last `read` or `append`.
    """

    def __init__(self, path: Path, is_read_only: bool = False) -> None:
        """Opens a file; a link is not followed."""
        self.path = path
        mode = "r" if is_read_only else "r+"
        with _explain_failure(path):
            # Unbuffered: a buffer would be written once more when a file is closed
            # that could not be written.
            self._file = io.FileIO(str(path), mode, opener=_open_no_link)
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def written(self) -> Written:
        return Written(self._size, self._hash.hexdigest())

    def close(self) -> None:
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
        with _explain_failure(self.path):
            self._file.truncate(self._size)
            self._file.seek(self._size)

    def append(self, text: str) -> None:
        data = text.encode()
        left = memoryview(data)
        with _explain_failure(self.path):
            while left:
                left = left[self._file.write(left) :]
        self._hash.update(data)
        self._size += len(data)

    def sync(self) -> None:
        """Waits until all is on the disk, under the name it was opened by."""
        with _explain_failure(self.path):
            os.fsync(self._file.fileno())
        if not _is_in_place(self._file, self.path):
            raise JobError(
                f"{show(str(self.path))} was removed or replaced while it was written:"
                " name another --output"
            )


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _is_in_place(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _link(temporary: Path, path: Path) -> None:
    """Gives a file a second name, which must be free (FileExistsError)."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # A file system without links; the name was free a moment ago.
        return


@contextlib.contextmanager
def _explain_failure(path: Path) -> Iterator[None]:
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


def _refuse(paths: list[Path]) -> NoReturn:
    names = " and ".join(show(str(path)) for path in paths)
    is_one = len(paths) == 1
    raise JobError(
        f"{names} {'exists and is' if is_one else 'exist and are'} not of this command:"
        f" name another --output, or move {'it' if is_one else 'them'} away"
    )


def _list_existing(paths: JobPaths) -> str:
    existing = (paths.output, paths.rejected, paths.record)
    return " and ".join(show(str(p)) for p in existing if os.path.lexists(p))


def _quote(path: Path) -> str:
    """Returns a file's name in ASCII, as in a URL: it may be no Unicode."""
    return quote_from_bytes(os.fsencode(path.name), safe=" ")


def _chain(digest: str, chunk: list[InputRow]) -> str:
    """Returns a digest of all rows so far: files tell no more than what was read."""
    # repr writes lone surrogates as escapes, so this can be encoded.
    return hashlib.sha256(f"{digest}{chunk!r}".encode()).hexdigest()[:32]


def _format_problems(rows: list[InputRow]) -> str:
    return "".join(
        json.dumps({"line": row.line, "problem": row.problem}) + "\n" for row in rows
    )
