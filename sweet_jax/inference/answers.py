"""Answers of the predict command, as lines of jsonl or csv."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sweet_jax.inference.classifier import AdaptiveClassifier, Prediction
from sweet_jax.inference.inputs import InputRow

_ENCODER = json.JSONEncoder(ensure_ascii=False)


class AnswerRow(NamedTuple):
    """What is written about a row of the input.

    Attributes:
        line: where the row begins.
        label: name of the most probable class.
        probability: of that class.
        exit: that answered.
        layers: that were run.
        probabilities: of each class; not in a csv.
    """

    line: int
    label: str
    probability: float
    exit: int
    layers: int
    probabilities: dict[str, float]


_CSV_FIELDS = AnswerRow._fields[:-1]
CSV_HEADER = ",".join(_CSV_FIELDS) + "\n"


def answer_rows(
    classifier: AdaptiveClassifier,
    rows: list[InputRow],
    thresholds: tuple[float, ...],
    criterion: str,
) -> Iterator[AnswerRow]:
    """Yields the answer of each usable row, in order, as it is computed."""
    texts = [
        row.texts if classifier.description.has_pairs else row.texts[0] for row in rows
    ]
    predictions = classifier.answer(texts, thresholds, criterion)  # type: ignore[arg-type]
    for row, prediction in zip(rows, predictions, strict=True):
        yield _make_answer(classifier.label_names, row, prediction)


def format_jsonl(answers: Iterable[AnswerRow]) -> str:
    """Returns a JSON object a line."""
    return "".join(_ENCODER.encode(answer._asdict()) + "\n" for answer in answers)


def format_csv(answers: Iterable[AnswerRow]) -> str:
    """Returns lines of csv, without the header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows(answer[: len(_CSV_FIELDS)] for answer in answers)
    return buffer.getvalue()


def _make_answer(
    label_names: tuple[str, ...], row: InputRow, prediction: Prediction
) -> AnswerRow:
    # 6 digits: what is behind them depends on the batch.
    rounded = [round(p, 6) for p in prediction.probabilities]
    probabilities = dict(zip(label_names, rounded, strict=True))
    return AnswerRow(
        row.line,
        prediction.label,
        probabilities[prediction.label],
        prediction.exit,
        prediction.layers,
        probabilities,
    )
