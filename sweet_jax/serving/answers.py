"""Answers of the predict command, as lines of jsonl or csv."""

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
        probabilities: of each class.
        row_id: what the input says of which row this is; None: nothing.
        kept: values of the input by column; None: none were asked for.
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
    """How answers are written as csv.

    Attributes:
        label_names: of the classes; each has a column, `p_NAME`.
        has_id: there is a column `id`.
        kept: columns of the input that are written, too.
        formulas: `escape` puts an apostrophe into a cell where a spreadsheet could
            begin a formula; `keep` leaves cells as they are.
    """

    label_names: tuple[str, ...]
    has_id: bool = False
    kept: tuple[str, ...] = ()
    formulas: str = "escape"

    def format_header(self) -> str:
        """Returns the line of the names.

        A column of the input whose name an answer has already is `input_NAME`.
        """
        names = ["line", *["id"] * self.has_id, "label", "probability", "exit"]
        names += ["layers", *(f"p_{name}" for name in self.label_names)]
        for name in self.kept:
            while name in names:
                name = f"input_{name}"
            names.append(name)
        return self._format_line(names)

    def format_rows(self, answers: Iterable[AnswerRow]) -> str:
        """Returns the lines of answers.

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
                    " row lacks, so that a csv has no place for it: name the columns in"
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
        # Half of a surrogate pair is no UTF-8.
        text = text.encode("utf-8", "backslashreplace").decode()
        if re.search(r'[",\r\n]', text):  # csv.writer leaves \r alone.
            return '"' + text.replace('"', '""') + '"'
        return text


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


def format_jsonl(answers: Iterable[AnswerRow], has_id: bool = False) -> str:
    r"""Returns a JSON object a line; with an `id`, and `columns`, where asked for.

    What is no visible character is written as `\u2028`: a line is one line for every
    reader, and a terminal obeys no label.
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
        row.row_id,
        row.kept,
    )
