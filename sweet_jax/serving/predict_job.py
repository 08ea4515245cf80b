"""Runs the predict command: reads an input, predicts, writes the output."""

import contextlib
import dataclasses
import io
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sweet_jax.data.lines import LineReader
from sweet_jax.exits.criteria import FULL
from sweet_jax.serving.answers import (
    AnswerRow,
    CsvFormat,
    answer_rows,
    format_jsonl,
)
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.serving.inputs import (
    ALL,
    InputReader,
    InputRow,
    find_format,
    read_inputs,
)
from sweet_jax.serving.job import Job, read_settings
from sweet_jax.serving.job_files import JobError
from sweet_jax.serving.measured_speedup import format_speedups, measure_speedups
from sweet_jax.serving.model_folder import compute_folder_digest
from sweet_jax.serving.predict_options import PredictOptions
from sweet_jax.system.files import show
from sweet_jax.system.process import tell
from sweet_jax.thresholds.choice import pick_target

# Enough rows for every bucket; few enough to run the full model on them many times.
_BENCHMARK_ROWS = 2000


class Stopped(KeyboardInterrupt):
    """The job was stopped on request; the message says how to resume."""


@dataclasses.dataclass
class _Request:
    """A prediction request: the classifier, its options and the input."""

    classifier: AdaptiveClassifier
    options: PredictOptions
    thresholds: tuple[float, ...]
    reader: LineReader
    rows: InputReader


def predict_file(classifier: AdaptiveClassifier, options: PredictOptions) -> str:
    """Predicts all rows of an input; returns a summary in lines.

    Raises:
        ValueError: an option is wrong, the input cannot be read, the output belongs to
            another job, or with `strict` a row is unusable.
        Stopped: KeyboardInterrupt was raised.
    """
    options.check(classifier.folder)
    input_format = find_format(options.source, options.input_format)
    settings = _describe(classifier, options, input_format)
    thresholds = _choose_thresholds(classifier, options, settings)
    with _open_input(options) as file:
        reader = LineReader(file)
        rows = _read_rows(classifier, options, reader, input_format)
        request = _Request(classifier, options, thresholds, reader, rows)
        if options.output is None:
            return _answer_to_screen(request)
        settings["thresholds"] = ["full" if t == FULL else t for t in thresholds]
        with contextlib.closing(
            Job(options.output, settings, options.chunk_rows)
        ) as job:
            return _answer_to_file(request, job)


def benchmark_file(
    classifier: AdaptiveClassifier, options: PredictOptions
) -> Iterator[str]:
    """Yields lines with expected and measured speed-ups on the first rows of an input.

    Raises:
        ValueError: an option is wrong, or no row is usable.
    """
    options.check(classifier.folder)
    has_pairs = classifier.description.has_pairs
    input_format = find_format(options.source, options.input_format)
    with _open_input(options) as file:
        rows = _read_rows(classifier, options, LineReader(file), input_format)
        usable = (row for row in rows if not row.problem)
        texts = [
            row.texts if has_pairs else row.texts[0]
            for row in itertools.islice(usable, _BENCHMARK_ROWS)
        ]
    if not texts:
        raise JobError(f"{options.source_name} has no row that can be used")
    examples = classifier.make_examples(texts)  # type: ignore[arg-type]
    yield f"{len(texts)} rows, {classifier!r}"
    yield from format_speedups(measure_speedups(classifier, examples))


def _read_rows(
    classifier: AdaptiveClassifier,
    options: PredictOptions,
    lines: LineReader,
    input_format: str,
) -> InputReader:
    description = classifier.description
    return read_inputs(
        lines,
        input_format,
        2 if description.has_pairs else 1,
        options.text_columns,
        remembered=description.text_columns,
        passed=options.passed,
    )


def _describe(
    classifier: AdaptiveClassifier, options: PredictOptions, input_format: str
) -> dict[str, Any]:
    """Returns everything that the predictions depend on, except the thresholds."""
    settings: dict[str, Any] = {
        "model": compute_folder_digest(classifier.folder),
        "format": input_format,
        "text_columns": list(options.text_columns),
        "id_column": options.id_column,
        "keep_columns": list(options.passed.keep_columns),
        "criterion": options.criterion,
        "batch_size": classifier.engine.shapes.batch_size,
        "backend": type(classifier.engine.segments).__name__,
    }
    if options.is_csv:
        settings["csv_formulas"] = options.csv_formulas
    if options.milliseconds is not None:
        settings |= {"milliseconds": options.milliseconds, "choose": options.choose}
    return settings


def _choose_thresholds(
    classifier: AdaptiveClassifier, options: PredictOptions, settings: dict[str, Any]
) -> tuple[float, ...]:
    if options.output is not None and "milliseconds" in settings:
        # New measurements would differ a little, and the job could not resume.
        stored = read_settings(options.output)
        if settings.items() <= stored.items():
            return tuple(FULL if t == "full" else t for t in stored["thresholds"])
    target = pick_target(**options.targets)
    return classifier.choose_thresholds(target, options.criterion, options.choose)


def _answer_to_file(request: _Request, job: Job) -> str:
    was_finished = job.progress.finished
    options = request.options

    csv_format = _make_csv_format(request) if options.is_csv else None

    def answer(rows: list[InputRow]) -> str:
        answers = _answer(request, rows)
        if csv_format is not None:
            return csv_format.format_rows(answers)
        return format_jsonl(answers, bool(options.id_column))

    try:
        with _show_progress(request) as bar:

            def show_rows(num_rows: int) -> None:
                bar.set_postfix_str(f"{num_rows} rows", refresh=False)
                bar.update(request.reader.num_bytes - bar.n)

            header = "" if csv_format is None else csv_format.format_header()
            job.run(request.rows, answer, header, options.strict, show_rows)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped after {job.progress.rows} rows: the same command goes on from"
            " there"
        ) from None
    output, rejected = (show(str(p)) for p in (job.paths.output, job.paths.rejected))
    if was_finished:
        return f"{output} is finished: nothing to do"
    done = job.progress
    lines = [f"{done.rows - done.rejected} rows answered in {output}"]
    if done.rejected:
        lines.append(f"{done.rejected} rows could not be used: {rejected}")
    return "\n".join([*lines, *_summarise(request, done.rows - done.rejected)])


def _make_csv_format(request: _Request) -> CsvFormat:
    """Returns the csv format; with --keep_columns=all, from the columns of the input.

    Raises:
        JobError: all columns are kept, but the first row of the input is unusable.
    """
    options = request.options
    kept = options.passed.keep_columns
    if kept == (ALL,):
        kept = tuple(filter(None, request.rows.columns))
        if not kept:
            raise JobError(
                "--keep_columns=all: the first row cannot be read, so the columns of"
                " the csv are unknown: correct the row, name the columns, or give an"
                " --output that ends in .jsonl"
            )
    labels = request.classifier.label_names
    return CsvFormat(labels, bool(options.id_column), kept, options.csv_formulas)


def _answer_to_screen(request: _Request) -> str:
    """Prints predictions as they are computed, while reading the available input."""
    answered = rejected = 0
    # On a non-blocking output with a slow reader, Python raises BlockingIOError.
    os.set_blocking(1, True)
    try:
        for chunk in _take_available(request):
            usable = [row for row in chunk if not row.problem]
            for row in chunk:
                if row.problem and request.options.strict:
                    raise JobError(f"line {row.line} {row.problem}")
                if row.problem:
                    tell(f"line {row.line} {show(row.problem)}: left out")
            rejected += len(chunk) - len(usable)
            for result in _answer(request, usable):
                # One write per line, so that a stop leaves complete lines.
                sys.stdout.write(
                    format_jsonl([result], bool(request.options.id_column))
                )
                sys.stdout.flush()
                answered += 1
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped after {answered} answers; only a command with"
            " --output=FILE.jsonl can go on after a stop"
        ) from None
    lines = [f"{answered} rows answered"]
    if rejected:
        lines.append(f"{rejected} rows could not be used")
    return "\n".join([*lines, *_summarise(request, answered)])


def _take_available(request: _Request) -> Iterator[list[InputRow]]:
    """Yields the rows that have arrived, at least one, without filling a chunk."""
    chunk = []
    for row in request.rows:
        chunk.append(row)
        if len(chunk) == request.options.chunk_rows or not request.reader.is_ready():
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _answer(request: _Request, rows: list[InputRow]) -> Iterator[AnswerRow]:
    return answer_rows(
        request.classifier, rows, request.thresholds, request.options.criterion
    )


def _summarise(request: _Request, answered: int) -> list[str]:
    if not answered:
        return [
            "no row could be used: read the problems above, and check that --format"
            " and --text_columns fit the input"
        ]
    stats = request.classifier.stats
    if not stats["rows"]:
        return []
    return [
        f"exits {stats['exit_counts']}, cost fraction {stats['cost_fraction']:.3f},"
        f" {stats['row_filling']:.2f} rows computed per row needed,"
        f" {stats['programs']} programs"
    ]


def _show_progress(request: _Request) -> tqdm:
    """Returns a progress bar over the input's bytes; its row count is unknown."""
    source = request.options.source
    return tqdm(
        total=None if source == "-" else Path(source).stat().st_size,
        unit="B",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
    )


@contextlib.contextmanager
def _open_input(options: PredictOptions) -> Iterator[io.FileIO]:
    """Opens the input; adds its name to an OSError while it is read."""
    if options.source != "-":
        with io.FileIO(options.source) as file, _name_errors(options.source):
            yield file
        return
    if os.isatty(0):
        tell("reading lines from the terminal: end with ctrl-D at the start of a line")
    with _name_errors("standard input"):
        yield io.FileIO(0, closefd=False)


@contextlib.contextmanager
def _name_errors(name: str) -> Iterator[None]:
    """Adds this name to an OSError that has no file name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = name
        raise
