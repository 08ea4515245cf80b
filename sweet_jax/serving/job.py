"""A prediction job: writes predictions for a stream of inputs to a file; resumable.

Each chunk of a fixed number of rows is predicted separately, so a prediction depends
only on its chunk, and a resumed job writes the same output as an uninterrupted one.
After each chunk OUTPUT.job.json records the progress; anything that a killed process
wrote after that is cut off.

A job writes only to files that it made itself. It makes the record first, and only if
no such file exists; the record lists the job's files with their lengths and checksums.
Any other file with one of the three names is an error before anything is written.
"""

import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from sweet_jax.serving.inputs import InputRow
from sweet_jax.serving.job_files import (
    Count,
    JobError,
    JobFile,
    JobPaths,
    Written,
    explain_failure,
    is_in_place,
    refuse,
)
from sweet_jax.system.files import (
    FileError,
    list_differences,
    read_as,
    show,
    take_lock,
    write_whole,
)

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a job.

    Attributes:
        settings: everything that the predictions depend on, except the input.
        files: name -> finished part, for each file that the job has made.
        input_digest: digest of the finished rows, chained from chunk to chunk.
        rows: number of finished input rows, including rejected ones.
        rejected: number of these rows that were unusable.
        finished: whether the whole input is done.
    """

    settings: dict[str, Any]
    files: dict[str, Written] = dataclasses.field(default_factory=dict)
    input_digest: str = ""
    rows: Count = 0
    rejected: Count = 0
    finished: bool = False


class Job:
    """The files of a job, locked against other processes until `close`.

    Attributes:
        paths: paths of its files.
        progress: its progress.
    """

    def __init__(self, output: Path, settings: dict[str, Any], chunk_rows: int) -> None:
        """Starts a new job, or opens one with the same settings.

        Args:
            output: file for the predictions.
            settings: plain values that the predictions depend on, except the input.
            chunk_rows: number of rows per chunk.

        Raises:
            JobError: a file belongs to another job or to none, is damaged, or another
                process writes to it.
        """
        self.paths = JobPaths.beside(output)
        self._chunk_rows = chunk_rows
        # Through JSON, to compare with a record from a file: tuples become lists.
        self._settings = json.loads(json.dumps(settings | {"chunk_rows": chunk_rows}))
        content = json.dumps(self._settings).encode()
        self._digest = hashlib.sha256(content).hexdigest()[:8]
        self._open = contextlib.ExitStack()
        with contextlib.ExitStack() as on_error:
            on_error.push(self._open)
            self.paths.check()
            if not self.paths.record.exists():
                with contextlib.suppress(FileExistsError):  # Another process made it.
                    self._save(Progress(self._settings), is_new=True)
            self.progress = self._read_record()
            if not self.progress.finished:  # A finished one may be read-only.
                self._lock()
                # Read again: another process may have worked until it released the
                # lock.
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
        """Predicts the remaining rows.

        Args:
            rows: rows of the whole input; finished ones are compared and skipped.
            answer: usable rows -> the lines of their predictions.
            header: first line of the output.
            strict: an unusable row stops the job.
            on_chunk: called after each chunk with the number of finished rows.

        Raises:
            JobError: the input differs from that of the started job, a file cannot be
                written, or with `strict` a row is unusable; finished rows are kept.
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
            self._record(chunk, len(bad))
            on_chunk(self.progress.rows)
        self._save(dataclasses.replace(self.progress, finished=True))

    def _read_record(self) -> Progress:
        """Returns the recorded progress, after comparing it with the files.

        Raises:
            JobError: a file does not belong to this job.
        """
        paths = self.paths
        remedy = f"name another --output, or move {paths.list_existing()} away"
        try:
            progress = read_as(paths.record, Progress, SCHEMA, remedy)
        except FileError as error:
            raise JobError(str(error)) from error
        if differences := list_differences(progress.settings, self._settings):
            raise JobError(
                f"--output={show(str(paths.output))} holds answers with other settings:"
                f" {'; '.join(differences)}: {remedy}"
            )
        own = {_quote(path): path for path in (paths.output, paths.rejected)}
        if others := progress.files.keys() - own.keys():
            raise JobError(
                f"{show(str(paths.record))} belongs to another output, since it names"
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
            # A process that was killed after making a file leaves an empty one.
            if written is None and size and not progress.finished:
                refuse([path])
        return progress

    def _lock(self) -> None:
        """Locks the output against other processes; makes the file if needed."""
        output = self.paths.output
        with explain_failure(output):
            lock = take_lock(output)
        if lock is not None:
            self._open.enter_context(lock)
        if lock is None or not is_in_place(lock, output):
            raise JobError(
                f"another process writes to --output={show(str(output))}: wait for it,"
                " or name another"
            )
        record = self.paths.record
        pattern = f".{glob.escape(record.name)}.{self._digest}.*.tmp"
        for temporary in record.parent.glob(pattern):
            temporary.unlink()  # Left by this job, killed while writing the record.

    def _open_file(self, path: Path, written: Written) -> JobFile:
        """Opens a file that the job has made, and compares it with the record."""
        file = JobFile(path, is_read_only=self.progress.finished)
        self._open.callback(file.close)
        if file.read(written.bytes) != written:
            raise JobError(
                f"{show(str(path))} was changed after it was written: name another"
                f" --output, or move {self.paths.list_existing()} away"
            )
        return file

    def _find_or_make(self, path: Path) -> JobFile:
        """Returns an open file; a new one is recorded before anything is written."""
        if path not in self._files:
            with explain_failure(path), contextlib.suppress(FileExistsError):
                path.open("xb").close()
            file = JobFile(path)
            self._open.callback(file.close)
            if file.read() != Written():
                refuse([path])
            self._files[path] = file
            # Recorded as empty, because rows of this unfinished chunk may be in the
            # output already.
            files = self.progress.files | {_quote(path): Written()}
            self._save(dataclasses.replace(self.progress, files=files))
        return self._files[path]

    def _skip(self, rows: Iterator[InputRow], on_chunk: Callable[[int], None]) -> None:
        """Reads and compares the finished rows, in their chunks."""
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
                f"the input differs from the one that --output="
                f"{show(str(self.paths.output))} was started with, of which"
                f" {self.progress.rows} rows are answered: name another --output"
            )

    def _record(self, chunk: list[InputRow], rejected: int) -> None:
        """Records a finished chunk, after its output is on the disk."""
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
        """Writes the record; raises FileExistsError if a new one already exists."""
        self.progress = progress  # First, because a stop reports it.
        path = self.paths.record
        text = json.dumps({"schema": SCHEMA, **dataclasses.asdict(progress)}, indent=1)
        with (
            explain_failure(path),
            write_whole(path, f"{self._digest}.") as temporary,
            temporary.open("x", encoding="utf-8") as file,
        ):
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
            if is_new:
                _link(temporary, path)


def read_settings(output: Path) -> dict[str, Any]:
    """Returns the settings of the job that started an output; {} without a job."""
    try:
        return read_as(JobPaths.beside(output).record, Progress, SCHEMA).settings
    except FileError:
        return {}


def _link(temporary: Path, path: Path) -> None:
    """Gives a file a second name; raises FileExistsError if that exists."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # A file system without links; the caller has checked the name.
        return


def _quote(path: Path) -> str:
    """Returns a file's name in ASCII, quoted as in a URL: it may not be Unicode."""
    return quote_from_bytes(os.fsencode(path.name), safe=" ")


def _chain(digest: str, chunk: list[InputRow]) -> str:
    """Returns a digest of all rows read so far; streams have no checksum or length."""
    # repr escapes lone surrogates, so the text can be encoded.
    return hashlib.sha256(f"{digest}{chunk!r}".encode()).hexdigest()[:32]


def _format_problems(rows: list[InputRow]) -> str:
    return "".join(
        json.dumps({"line": row.line, "problem": row.problem}) + "\n" for row in rows
    )
