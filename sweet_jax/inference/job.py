"""A prediction job: a stream of inputs to a file of answers, resumable.

Inputs are answered in chunks of a fixed number of rows, each by itself, so that an
answer depends on its chunk alone: a job that was killed and goes on writes what it
would have written. What is done stands in OUTPUT.job.json, written after each chunk;
whatever a killed process wrote past it is cut off.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sweet_jax.files import take_lock
from sweet_jax.inference.inputs import InputRow
from sweet_jax.workdir import list_differences

SCHEMA = 1


class JobError(ValueError):
    """A job cannot be run or gone on with: one line that says why."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What of a job is done.

    Attributes:
        settings: all that the answers depend on, the input aside.
        input_digest: of the rows that are done, chained from chunk to chunk.
        rows: of the input that are done, rejected ones included.
        rejected: of these, those that could not be used.
        output_bytes: length of the output.
        rejected_bytes: length of the side file.
        finished: nothing is left.
    """

    settings: dict[str, Any]
    input_digest: str = ""
    rows: int = 0
    rejected: int = 0
    output_bytes: int = 0
    rejected_bytes: int = 0
    finished: bool = False


class Job:
    """The files of a job, locked against other processes until `close`.

    Attributes:
        output: the answers.
        rejected: rows that could not be used, a JSON line each.
        progress: what is done.
    """

    def __init__(self, output: Path, settings: dict[str, Any], chunk_rows: int) -> None:
        """Opens a new job, or one of the same settings.

        Args:
            output: where answers go.
            settings: plain values that the answers depend on, the input aside.
            chunk_rows: answered together.

        Raises:
            JobError: the output is another job's, no job's, damaged, or being written.
        """
        self.output = output
        self.rejected = output.with_name(f"{output.name}.rejected.jsonl")
        self._record = output.with_name(f"{output.name}.job.json")
        self._chunk_rows = chunk_rows
        lock = take_lock(output)
        if lock is None:
            raise JobError(
                f"another process writes to --output={output}: wait for it, or name"
                " another"
            )
        self._lock = lock
        try:
            # As it comes back from a file: tuples are lists there.
            settings = json.loads(json.dumps(settings | {"chunk_rows": chunk_rows}))
            self.progress = self._find_progress(settings)
        except JobError:
            self.close()
            raise

    def close(self) -> None:
        """Lets other processes in."""
        self._lock.close()

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
            JobError: the input is another one; or `strict`, and a row cannot be used:
                what was answered stays.
        """
        iterator = iter(rows)
        self._skip(iterator, on_chunk)
        if self.progress.finished:
            return
        # From here on the output is known as that of this job.
        self._write_record()
        with (
            _open_at(self.output, self.progress.output_bytes) as out,
            _open_at(self.rejected, self.progress.rejected_bytes) as side,
        ):
            while chunk := list(itertools.islice(iterator, self._chunk_rows)):
                bad = [row for row in chunk if row.problem]
                if bad and strict:
                    raise JobError(f"line {bad[0].line} {bad[0].problem}")
                text = answer([row for row in chunk if not row.problem])
                if not self.progress.output_bytes:
                    text = header + text
                out.write(text.encode())
                side.write(_format_problems(bad).encode())
                self._note(out, side, chunk, len(bad))
                on_chunk(self.progress.rows)
            if not self.progress.rejected:
                self.rejected.unlink()
            self.progress = dataclasses.replace(self.progress, finished=True)
            self._write_record()

    def _find_progress(self, settings: dict[str, Any]) -> Progress:
        size = self.output.stat().st_size
        if not self._record.exists():
            # An empty one is what a process killed right here leaves.
            if size:
                raise JobError(
                    f"--output={self.output} exists and is not of this command: name"
                    " another, or delete it"
                )
            return Progress(settings)
        progress = _read_progress(self._record)
        remedy = f"name another, or delete it and {self._record.name}"
        if differences := list_differences(progress.settings, settings):
            raise JobError(
                f"--output={self.output} holds answers of other settings:"
                f" {'; '.join(differences)}: {remedy}"
            )
        written = {self.output: progress.output_bytes}
        if progress.rejected:
            written[self.rejected] = progress.rejected_bytes
        for path, length in written.items():
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                raise JobError(
                    f"{path} has {size} bytes, {length} were written: {remedy}"
                )
        return progress

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
                f"the input is not what --output={self.output} was begun with: of that,"
                f" {self.progress.rows} rows are answered; name another --output"
            )

    def _note(
        self,
        out: io.BufferedRandom,
        side: io.BufferedRandom,
        chunk: list[InputRow],
        rejected: int,
    ) -> None:
        """Writes down what is done, after it is on the disk."""
        for file in (out, side):
            file.flush()
            os.fsync(file.fileno())
        self.progress = dataclasses.replace(
            self.progress,
            input_digest=_chain(self.progress.input_digest, chunk),
            rows=self.progress.rows + len(chunk),
            rejected=self.progress.rejected + rejected,
            output_bytes=out.tell(),
            rejected_bytes=side.tell(),
        )
        self._write_record()

    def _write_record(self) -> None:
        # The lock is ours, so one name will do: none is left behind by every kill.
        temporary = self._record.with_name(f".{self._record.name}.tmp")
        content = {"schema": SCHEMA, **dataclasses.asdict(self.progress)}
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._record)


def _chain(digest: str, chunk: list[InputRow]) -> str:
    """Returns a digest of all rows so far: files tell no more than what was read."""
    # repr writes lone surrogates as escapes, so this can be encoded.
    return hashlib.sha256(f"{digest}{chunk!r}".encode()).hexdigest()[:32]


def _read_progress(path: Path) -> Progress:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content.pop("schema")
        if schema == SCHEMA:
            return Progress(**content)
    except (
        AttributeError,
        KeyError,
        TypeError,
        UnicodeDecodeError,
        json.JSONDecodeError,
    ) as error:
        raise JobError(
            f"{path} is damaged ({error}): delete it and its output, and start again"
        ) from error
    raise JobError(
        f"{path} has schema {schema}, this version reads {SCHEMA}: update sweet_jax"
    )


def _open_at(path: Path, position: int) -> io.BufferedRandom:
    """Opens a file for writing at a position; what a killed process left is cut."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(position)
    file.seek(position)
    return file


def _format_problems(rows: list[InputRow]) -> str:
    return "".join(
        json.dumps({"line": row.line, "problem": row.problem}) + "\n" for row in rows
    )
