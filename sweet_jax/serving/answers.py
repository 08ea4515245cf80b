"""Answers of the predict command, as lines of jsonl or csv."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sweet_jax.serving.classifier import AdaptiveClassifier, Prediction
from sweet_jax.serving.inputs import InputRow

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
# Where a spreadsheet could begin a formula (OWASP, "CSV Injection"): at a tab or a line
# end that begins a cell, and in front of = + - @ or their full-width forms, with blanks
# and quotes before them or not, at the start of a cell or of what becomes one where
# semicolons or tabs separate.
_SIGN = r"""[\s\x00-\x1f\ufeff"']*[-+=@\uff0b\uff0d\uff1d\uff20]"""
_FORMULA = re.compile(rf"\A(?=[\t\r\n]|{_SIGN})|(?<=[;,\t\r\n])(?={_SIGN})")

# What a spreadsheet reads as the number that it is: labels such as -1 stay themselves.
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


class AnswerError(ValueError):
    """The model gave what is no answer: one line that says for which row."""


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
    r"""Returns a JSON object a line.

    What is no visible character is written as `\u2028`: a line is one line for every
    reader, and a terminal obeys no label.
    """
    return "".join(
        _escape(_ENCODER.encode(answer._asdict())) + "\n" for answer in answers
    )


def format_csv(answers: Iterable[AnswerRow], formulas: str = "escape") -> str:
    """Returns lines of csv, without the header.

    Args:
        answers: of the rows.
        formulas: `escape` puts an apostrophe into a label where a spreadsheet could
            begin a formula; `keep` leaves labels as they are.
    """
    return "".join(_format_csv_row(answer, formulas == "escape") for answer in answers)


def _format_csv_row(answer: AnswerRow, escapes: bool) -> str:
    label = answer.label
    if escapes and not _NUMBER.fullmatch(label):
        label = _FORMULA.sub("'", label)
    # Half of a surrogate pair is no UTF-8.
    label = label.encode("utf-8", "backslashreplace").decode()
    if re.search(r'[",\r\n]', label):  # csv.writer leaves \r alone.
        label = '"' + label.replace('"', '""') + '"'
    numbers = (answer.probability, answer.exit, answer.layers)
    return ",".join([str(answer.line), label, *map(str, numbers)]) + "\n"


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _make_answer(
    label_names: tuple[str, ...], row: InputRow, prediction: Prediction
) -> AnswerRow:
    # 6 digits: what is behind them depends on the batch.
    rounded = [round(p, 6) for p in prediction.probabilities]
    if not all(map(math.isfinite, rounded)):
        raise AnswerError(
            f"line {row.line} has no answer: the model gives a probability that is no"
            " number; its weights are damaged, or did not converge"
        )
    probabilities = dict(zip(label_names, rounded, strict=True))
    return AnswerRow(
        row.line,
        prediction.label,
        probabilities[prediction.label],
        prediction.exit,
        prediction.layers,
        probabilities,
    )
