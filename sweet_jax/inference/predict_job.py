"""From an input to answers with a classifier: what the predict command does."""

import contextlib
import dataclasses
import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from sweet_jax.data.lines import LineReader
from sweet_jax.exits.criteria import FULL
from sweet_jax.inference.answers import (
    CSV_HEADER,
    AnswerRow,
    answer_rows,
    format_csv,
    format_jsonl,
)
from sweet_jax.inference.benchmark import format_speedups, measure_speedups
from sweet_jax.inference.choice import pick_target
from sweet_jax.inference.classifier import AdaptiveClassifier
from sweet_jax.inference.inputs import InputRow, find_format, read_inputs
from sweet_jax.inference.job import Job, JobError
from sweet_jax.inference.model_folder import compute_folder_digest
from sweet_jax.inference.predict_options import PredictOptions

# Enough for every bucket to be met; the full model runs on them many times.
_BENCHMARK_ROWS = 2000


class Stopped(KeyboardInterrupt):
    """The job was asked to stop; the message says how to go on."""


@dataclasses.dataclass
class _Request:
    """Who answers, how, and what."""

    classifier: AdaptiveClassifier
    options: PredictOptions
    thresholds: tuple[float, ...]
    reader: LineReader
    rows: Iterator[InputRow]


def predict_file(classifier: AdaptiveClassifier, options: PredictOptions) -> str:
    """Answers an input; returns what was done, in lines.

    Raises:
        ValueError: an option is wrong, the input cannot be read, the output is another
            job's, or under `strict` a row cannot be used.
        Stopped: by KeyboardInterrupt.
    """
    options.check()
    input_format = find_format(options.source, options.input_format)
    target = pick_target(**options.targets)
    thresholds = classifier.choose_thresholds(target, options.criterion)
    with _open_input(options.source) as file:
        reader = LineReader(file)
        num_texts = 2 if classifier.description.has_pairs else 1
        rows = read_inputs(reader, input_format, num_texts, options.text_columns)
        request = _Request(classifier, options, thresholds, reader, rows)
        if options.output is None:
            return _answer_to_screen(request)
        settings = {
            "model": compute_folder_digest(classifier.folder),
            "format": input_format,
            "text_columns": options.text_columns,
            "criterion": options.criterion,
            "thresholds": ["full" if t == FULL else t for t in thresholds],
            "batch_size": classifier.engine.shapes.batch_size,
        }
        with contextlib.closing(
            Job(options.output, settings, options.chunk_rows)
        ) as job:
            return _answer_to_file(request, job)


def benchmark_file(
    classifier: AdaptiveClassifier, options: PredictOptions
) -> Iterator[str]:
    """Yields lines on promised and measured speed-ups on the first rows of an input.

    Raises:
        ValueError: an option is wrong, or no row can be used.
    """
    if any(value is not None for value in options.targets.values()):
        raise JobError(
            "--benchmark takes thresholds of its own: leave --threshold, --speedup,"
            " --milliseconds and --max_accuracy_loss out"
        )
    has_pairs = classifier.description.has_pairs
    input_format = find_format(options.source, options.input_format)
    with _open_input(options.source) as file:
        rows = read_inputs(
            LineReader(file), input_format, 2 if has_pairs else 1, options.text_columns
        )
        usable = (row for row in rows if not row.problem)
        texts = [
            row.texts if has_pairs else row.texts[0]
            for row in itertools.islice(usable, _BENCHMARK_ROWS)
        ]
    if not texts:
        raise JobError(f"--input={options.source} has no row that can be used")
    examples = classifier.make_examples(texts)  # type: ignore[arg-type]
    yield f"{len(texts)} rows, {classifier!r}"
    yield from format_speedups(measure_speedups(classifier, examples))


def _answer_to_file(request: _Request, job: Job) -> str:
    was_finished = job.progress.finished
    is_csv = job.output.suffix.lower() == ".csv"
    format_answers = format_csv if is_csv else format_jsonl

    def answer(rows: list[InputRow]) -> str:
        return format_answers(_answer(request, rows))

    try:
        with _show_progress(request) as bar:

            def show(num_rows: int) -> None:
                bar.set_postfix_str(f"{num_rows} rows", refresh=False)
                bar.update(request.reader.num_bytes - bar.n)

            header = CSV_HEADER if is_csv else ""
            job.run(request.rows, answer, header, request.options.strict, show)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped after {job.progress.rows} rows: the same command goes on from"
            " there"
        ) from None
    if was_finished:
        return f"{job.output} is finished: nothing to do"
    done = job.progress
    lines = [f"{done.rows - done.rejected} rows answered in {job.output}"]
    if done.rejected:
        lines.append(f"{done.rejected} rows could not be used: {job.rejected}")
    return "\n".join([*lines, *_summarise(request.classifier)])


def _answer_to_screen(request: _Request) -> str:
    """Prints answers as they are computed, and takes what input there is meanwhile."""
    answered = rejected = 0
    try:
        for chunk in _take_available(request):
            usable = [row for row in chunk if not row.problem]
            for row in chunk:
                if row.problem and request.options.strict:
                    raise JobError(f"line {row.line} {row.problem}")
                if row.problem:
                    print(f"line {row.line} {row.problem}: left out", file=sys.stderr)
            rejected += len(chunk) - len(usable)
            for result in _answer(request, usable):
                sys.stdout.write(format_jsonl([result]))
                answered += 1
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped after {answered} answers; with --output=FILE.jsonl the same"
            " command could go on"
        ) from None
    lines = [f"{answered} rows answered"]
    if rejected:
        lines.append(f"{rejected} rows could not be used")
    return "\n".join([*lines, *_summarise(request.classifier)])


def _take_available(request: _Request) -> Iterator[list[InputRow]]:
    """Yields rows that have arrived, at least one: nobody waits for a full chunk."""
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


def _summarise(classifier: AdaptiveClassifier) -> list[str]:
    stats = classifier.stats
    if not stats["rows"]:
        return []
    return [
        f"exits {stats['exit_counts']}, cost fraction {stats['cost_fraction']:.3f},"
        f" {stats['row_filling']:.2f} rows computed per row needed,"
        f" {stats['programs']} programs"
    ]


def _show_progress(request: _Request) -> tqdm:
    """Returns a bar over the bytes of the input: its rows nobody has counted."""
    source = request.options.source
    return tqdm(
        total=None if source == "-" else Path(source).stat().st_size,
        unit="B",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
    )


def _open_input(source: str) -> io.FileIO:
    if source == "-":
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    return io.FileIO(source)
