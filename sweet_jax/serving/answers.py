"""Formats the predictions of the predict command as lines of jsonl or csv."""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sweet_jax.data.rows import quote
from sweet_jax.serving.classifier import AdaptiveClassifier, Prediction
from sweet_jax.serving.inputs import InputRow

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
# Places where a spreadsheet may start a formula (OWASP, "CSV Injection"): a tab or line
# end at the start of a cell; = + - @ or their full-width forms, optionally after blanks
# and quotes, at the start of a cell or after a semicolon or tab, which some programs
# read as separators.
_SIGN = r"""[\s\x00-\x1f\ufeff"']*[-+=@\uff0b\uff0d\uff1d\uff20]"""
_FORMULA = re.compile(rf"\A(?=[\t\r\n]|{_SIGN})|(?<=[;,\t\r\n])(?={_SIGN})")

# Plain numbers such as the label -1 are safe and need no escaping.
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


class AnswerError(ValueError):
    """A prediction cannot be written; the one-line message names the row."""


class AnswerRow(NamedTuple):
    """The output for one row of the input.

    Attributes:
        line: the line at which the row begins.
        label: name of the most probable class.
        probability: probability of that class.
        exit: the exit at which the row left.
        layers: number of layers that were run.
        probabilities: probability of each class.
        row_id: value of the id column; None without one.
        kept: input values to write, by column; None without --keep_columns.
    """

    line: int
    label: str
    probability: float
    exit: int
    layers: int
    probabilities: dict[str, float]
    row_id: Any = None
    kept: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class CsvFormat:
    """The csv format of predictions.

    Attributes:
        label_names: names of the classes; each has a column `p_NAME`.
        has_id: whether there is a column `id`.
        kept: columns of the input to write.
        formulas: `escape` puts an apostrophe before text that a spreadsheet could read
            as a formula; `keep` leaves cells unchanged.
    """

    label_names: tuple[str, ...]
    has_id: bool = False
    kept: tuple[str, ...] = ()
    formulas: str = "escape"

    def format_header(self) -> str:
        """Returns the header line.

        An input column with the name of an output column becomes `input_NAME`.
        """
        names = ["line", *["id"] * self.has_id, "label", "probability", "exit"]
        names += ["layers", *(f"p_{name}" for name in self.label_names)]
        for name in self.kept:
            while name in names:
                name = f"input_{name}"
            names.append(name)
        return self._format_line(names)

    def format_rows(self, answers: Iterable[AnswerRow]) -> str:
        """Returns the lines of predictions.

        Raises:
            AnswerError: a row has a column that the header lacks.
        """
        return "".join(map(self._format_row, answers))

    def _format_row(self, answer: AnswerRow) -> str:
        kept = answer.kept or {}
        for name in kept:
            if name not in self.kept:
                raise AnswerError(
                    f"line {answer.line} has the column {quote(name)}, which the first"
                    " row lacks, so it is not in the csv header: name the columns in"
                    " --keep_columns, or give an --output that ends in .jsonl"
                )
        return self._format_line(
            [
                answer.line,
                *[answer.row_id] * self.has_id,
                answer.label,
                answer.probability,
                answer.exit,
                answer.layers,
                *answer.probabilities.values(),
                *map(kept.get, self.kept),
            ]
        )

    def _format_line(self, cells: Sequence[Any]) -> str:
        return ",".join(self._format_cell(cell) for cell in cells) + "\n"

    def _format_cell(self, cell: Any) -> str:
        if cell is None:
            return ""
        text = cell if isinstance(cell, str) else _ENCODER.encode(cell)
        if self.formulas == "escape" and not _NUMBER.fullmatch(text):
            text = _FORMULA.sub("'", text)
        # UTF-8 cannot encode half of a surrogate pair.
        text = text.encode("utf-8", "backslashreplace").decode()
        if re.search(r'[",\r\n]', text):  # csv.writer ignores \r.
            return '"' + text.replace('"', '""') + '"'
        return text


def answer_rows(
    classifier: AdaptiveClassifier,
    rows: list[InputRow],
    thresholds: tuple[float, ...],
    criterion: str,
) -> Iterator[AnswerRow]:
    """Yields the prediction of each usable row, in order, as soon as it is computed."""
    texts = [
        row.texts if classifier.description.has_pairs else row.texts[0] for row in rows
    ]
    predictions = classifier.answer(texts, thresholds, criterion)  # type: ignore[arg-type]
    for row, prediction in zip(rows, predictions, strict=True):
        yield _make_answer(classifier.label_names, row, prediction)


def format_jsonl(answers: Iterable[AnswerRow], has_id: bool = False) -> str:
    r"""Returns one JSON object per line, with `id` and `columns` if requested.

    Invisible characters are escaped, as `\u2028`: every reader sees one line per row,
    and labels cannot control a terminal.
    """
    return "".join(
        _escape(_ENCODER.encode(_to_json(answer, has_id))) + "\n" for answer in answers
    )


def _to_json(answer: AnswerRow, has_id: bool) -> dict[str, Any]:
    fields = answer._asdict()
    row_id, kept = fields.pop("row_id"), fields.pop("kept")
    line = {"line": fields.pop("line")} | ({"id": row_id} if has_id else {})
    return line | fields | ({} if kept is None else {"columns": kept})


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _make_answer(
    label_names: tuple[str, ...], row: InputRow, prediction: Prediction
) -> AnswerRow:
    # 6 digits: further digits depend on the batch.
    rounded = [round(p, 6) for p in prediction.probabilities]
    if not all(map(math.isfinite, rounded)):
        raise AnswerError(
            f"line {row.line} has no answer: the model gives a probability that is not"
            " a number; its weights are damaged, or its training diverged"
        )
    probabilities = dict(zip(label_names, rounded, strict=True))
    return AnswerRow(
        row.line,
        prediction.label,
        probabilities[prediction.label],
        prediction.exit,
        prediction.layers,
        probabilities,
        row.row_id,
        row.kept,
    )
