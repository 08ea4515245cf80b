"""Finds the columns of a table that hold the texts and the labels.

In this order: the columns that the user names; the columns of a model's training, if
the table has them; columns with usual names, in upper or lower case; and in a table of
two columns, their content. If several columns are possible, none is guessed: one error
lists all columns, each with an example, and shows what to type.
"""

import csv
import io
import itertools
import json
import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sweet_jax.data.rows import format_value, holds_surrogates, quote
from sweet_jax.system.files import show

logger = logging.getLogger(__name__)

# The first rows, which decisions by content and examples in messages are taken from.
SAMPLE_ROWS = 1000
# A longer name is not a header. A model folder stores names up to this length.
LONGEST_NAME = 1000


class Columns(NamedTuple):
    """The columns of a table that are read.

    Attributes:
        texts: one column, or two for pairs; (): not known.
        label: the column of labels; empty: not known, or not read.
        by_content: whether they were chosen by their content, not by their names.
    """

    texts: tuple[str, ...] = ()
    label: str = ""
    by_content: bool = False


class ColumnFlags(NamedTuple):
    """The flags or arguments that name columns, for messages.

    Attributes:
        text: the flag for one or two columns of texts.
        label: the flag for the column of labels.
        is_python: whether both are arguments of a Python function.
    """

    text: str = "--config.data.text_columns"
    label: str = "--config.data.label_column"
    is_python: bool = False

    def format(self, texts: Sequence[str], label: str = "") -> str:
        """Returns what to type for these columns; empty `label`: only texts."""
        if self.is_python:
            names = list(map(json.dumps, texts))
            value = names[0] if len(names) == 1 else f"({', '.join(names)})"
            line = f"{self.text}={value}"
            return f"{line}, {self.label}={json.dumps(label)}" if label else line
        line = format_flag(self.text, texts)
        return f"{line} {self.label}={shlex.quote(label)}" if label else line


NO_COLUMNS = Columns()
MAIN_FLAGS = ColumnFlags()
_PAIRS: tuple[tuple[str, str], ...] = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
_TEXTS = (
    "text", "sentence", "message", "review", "content", "body", "tweet", "title",
    "comment", "document", "description", "summary", "abstract", "headline", "subject",
    "question", "query", "utterance", "input",
)  # fmt: skip
_LABELS = (
    "label", "labels", "category", "class", "target", "sentiment", "intent", "topic",
)  # fmt: skip
# Often not the label, so never chosen automatically, only suggested in messages.
_LIKELY_LABELS = ("stars", "rating", "score", "type", "kind", "tag", "y")
# Separators in files that are wrongly named .csv or .tsv.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
# Limits of a message: columns, and characters of an example and of a suggested name.
_MOST_NAMES = 20
_LONGEST_EXAMPLE = 24
_LONGEST_TYPED = 100
# Two words, or a script that is written without spaces.
_PROSE = re.compile(r"[^\W\d_]\S*\s+\S*[^\W\d_]|[\u2e80-\u9fff\uac00-\ud7af]")


def find_columns(
    values: Mapping[str, Sequence[Any]],
    where: str,
    asked: Columns = NO_COLUMNS,
    remembered: Columns = NO_COLUMNS,
    flags: ColumnFlags = MAIN_FLAGS,
    needs_label: bool = True,
) -> Columns:
    """Returns the columns to read.

    Args:
        values: column -> its values; only the first `SAMPLE_ROWS` are read.
        where: file name, or data set and split, for messages.
        asked: the columns that the user or the task names; missing ones are searched.
        remembered: the columns of a model's training; used if the table has them.
        flags: the flags or arguments that name columns, for messages.
        needs_label: whether labels are read, too.

    Raises:
        ValueError: columns are missing or ambiguous (the message lists all, and shows
            what to type), or one column is named twice.
    """
    return _Search(values, where, flags, needs_label).run(asked, remembered)


def describe_columns(columns: Columns) -> str:
    """Describes the columns, such as `texts in 'title', labels in 'stars'`."""
    texts = f"texts in {' and '.join(map(quote, columns.texts))}"
    return f"{texts}, labels in {quote(columns.label)}" if columns.label else texts


def format_flag(flag: str, names: Sequence[str]) -> str:
    """Returns a flag with column names as it is typed into a shell."""
    if any(name != name.strip() for name in names):
        value = repr(tuple(names))  # Only a Python tuple keeps spaces at the ends.
    else:
        # Names with commas need quotes, as in a line of csv.
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(names)
        value = line.getvalue()
    return f"{flag}={shlex.quote(value)}"


class _Search:
    """The search for the columns of one table."""

    def __init__(
        self,
        values: Mapping[str, Sequence[Any]],
        where: str,
        flags: ColumnFlags,
        needs_label: bool,
    ) -> None:
        self._values, self._where, self._flags = values, where, flags
        self._needs_label = needs_label
        self._names = list(values)

    def run(self, asked: Columns, remembered: Columns) -> Columns:
        texts, label = asked.texts, asked.label if self._needs_label else ""
        if not texts and self._has(remembered.texts):
            texts = remembered.texts
        if self._needs_label and not label and self._has(filter(None, [remembered[1]])):
            label = remembered.label
        text_choices = label_choices = ()
        if not texts:
            text_choices = self._list_usual_texts(label)
            texts = text_choices[0] if len(text_choices) == 1 else ()
        if self._needs_label and not label:
            label_choices = self._list_usual(_LABELS, texts)
            label = label_choices[0] if len(label_choices) == 1 else ""
        by_content = asked.by_content
        # If several names are usual, content does not decide between them.
        if len(text_choices) < 2 and len(label_choices) < 2:
            by_name = texts, label
            texts, label = self._decide_by_content(texts, label)
            by_content |= (texts, label) != by_name
        missing = [name for name in (*texts, label) if name and name not in self._names]
        if missing or not texts or (self._needs_label and not label):
            raise self._ask(texts, label, text_choices, label_choices, missing)
        self._check(texts, label)
        found = Columns(texts, label, by_content)
        if found[:2] != (asked.texts, asked.label if self._needs_label else ""):
            how = ", chosen by content" if by_content else ""
            logger.info("%s: %s%s", self._where, describe_columns(found), how)
        return found

    def _has(self, names: Iterable[str]) -> bool:
        names = list(names)
        return bool(names) and all(name in self._names for name in names)

    def _list_usual(
        self, usual: Sequence[str], taken: Sequence[str]
    ) -> tuple[str, ...]:
        return tuple(
            name
            for known in usual
            for name in self._names
            if name.casefold() == known and name not in taken
        )

    def _list_usual_texts(self, label: str) -> tuple[tuple[str, ...], ...]:
        pairs = [
            pair
            for one, other in _PAIRS
            for pair in itertools.product(
                self._list_usual([one], [label]), self._list_usual([other], [label])
            )
        ]
        # `question` + `sentence` (QNLI) are one pair, not two candidates.
        in_pairs = [name for pair in pairs for name in pair]
        singles = self._list_usual(_TEXTS, [label, *in_pairs])
        return (*pairs, *((name,) for name in singles))

    def _decide_by_content(
        self, texts: tuple[str, ...], label: str
    ) -> tuple[tuple[str, ...], str]:
        """Returns both columns if the content of two decides, else the known ones."""
        names = self._names
        if len(names) != 2 or not self._needs_label or (texts and label):
            return texts, label
        if any(name not in names for name in (*texts, label) if name):
            return texts, label
        if not texts and not label:
            labels = [name for name in names if self._looks_like_labels(name)]
            if len(labels) != 1:
                return texts, label
            label = labels[0]
            others = [name for name in names if name != label]
            return ((others[0],), label) if self._is_text(others[0]) else ((), "")
        other = next((n for n in names if n not in (*texts, label)), "")
        if not other:
            return texts, label
        if texts:
            return texts, other if self._looks_like_labels(other) else ""
        return ((other,) if self._is_text(other) else ()), label

    def _list_proper(self) -> list[str]:
        """Returns the names that are short enough to type."""
        return [name for name in self._names if 0 < len(name) <= _LONGEST_TYPED]

    def _sample(self, name: str) -> list[Any]:
        return list(itertools.islice(self._values[name], SAMPLE_ROWS))

    def _looks_like_labels(self, name: str) -> bool:
        """Whether a column with a header has few different values."""
        found = self._sample(name)
        shown = [str(value) for value in found]
        return (
            bool(found)
            and self._is_header(name, shown)
            and all(isinstance(value, str | int) for value in found)
            and all(text.strip() for text in shown)
            and 2 * len(set(shown)) <= len(shown)
        )

    def _is_text(self, name: str) -> bool:
        """Whether a column with a header has sentences that mostly differ."""
        found = self._sample(name)
        return (
            all(isinstance(value, str) for value in found)
            and self._is_header(name, found)
            and 2 * len(set(found)) > len(found)
            and 2 * sum(_PROSE.search(text) is not None for text in found) >= len(found)
        )

    def _is_header(self, name: str, shown: Sequence[str]) -> bool:
        # In a table without a header, the first row looks like the others.
        return (
            name == name.strip() != ""
            and len(name.split()) <= 3
            and any(map(str.isalpha, name))
            and name not in shown
        )

    def _ask(
        self,
        texts: tuple[str, ...],
        label: str,
        text_choices: Sequence[tuple[str, ...]],
        label_choices: Sequence[str],
        missing: Sequence[str],
    ) -> ValueError:
        """Returns the error that lists the columns and shows what to type."""
        problems = []
        if not texts:
            problems.append(
                _list_choices("texts", [" + ".join(pair) for pair in text_choices])
                or "no text column with a usual name"
            )
        problems += [f"no column {quote(name)}" for name in missing]
        if self._needs_label and not label:
            problems.append(
                _list_choices("labels", label_choices)
                or "no column 'label' and no other usual name for labels"
            )
        given = self._list_proper()
        texts = tuple(name for name in texts if name in given)
        label = label if label in given else ""
        label = label or self._guess_label(texts, label_choices)
        texts = texts or self._guess_texts(label, text_choices)
        line = self._flags.format(
            texts or ("NAME",), (label or "NAME") if self._needs_label else ""
        )
        reason = _explain(self._names)
        if len(self._names) == 1 and self._needs_label and not reason:
            reason = " (texts and labels are two columns)"
        return ValueError(
            f"{self._where} has {' and '.join(problems)}; its columns are"
            f" {self._show_columns()}: set {show(line)}{reason}"
        )

    def _guess_label(self, texts: Sequence[str], choices: Sequence[str]) -> str:
        rest = [name for name in self._list_proper() if name not in texts]
        few = [name for name in rest if self._looks_like_labels(name)]
        few.sort(key=lambda name: len(set(map(str, self._sample(name)))))
        usual = self._list_usual((*_LABELS, *_LIKELY_LABELS), texts)
        alone = rest if texts and len(rest) == 1 else []
        return next(iter((*choices, *usual, *few, *alone)), "")

    def _guess_texts(
        self, label: str, choices: Sequence[tuple[str, ...]]
    ) -> tuple[str, ...]:
        if choices:
            return choices[0]
        usual = self._list_usual(_TEXTS, [label])
        rest = [name for name in self._list_proper() if name != label]
        prose = [name for name in rest if self._is_text(name)]
        prose.sort(key=lambda name: -sum(map(len, self._sample(name))))
        alone = rest if len(rest) == 1 else []
        return tuple(itertools.islice((*usual, *prose, *alone), 1))

    def _show_columns(self) -> str:
        shown = []
        for name in self._names[:_MOST_NAMES]:
            found = (value for value in self._sample(name) if value not in ("", None))
            example = next(found, "")
            text = (
                repr(
                    example[:_LONGEST_EXAMPLE]
                    + "..." * (len(example) > _LONGEST_EXAMPLE)
                )
                if isinstance(example, str)
                else format_value(example)
            )
            shown.append(f"{quote(name)} ({text})")
        more = len(self._names) - _MOST_NAMES
        return ", ".join(shown) + (f" and {more:,} others" if more > 0 else "")

    def _check(self, texts: tuple[str, ...], label: str) -> None:
        if label in texts:
            raise ValueError(
                f"{self._where}: {label!r} is the column of labels, so it cannot be"
                f" text, too: name other columns in {self._flags.text}"
            )
        if len(set(texts)) < len(texts):
            raise ValueError(
                f"{self._where}: {self._flags.text} names {texts[0]!r} twice: name it"
                " once"
            )
        if len(texts) > 2:
            raise ValueError(
                f"{self._where}: {self._flags.text} names {len(texts)} columns: allowed"
                " are one or two"
            )
        for name in (*texts, label):
            if len(name) > LONGEST_NAME or holds_surrogates(name):
                raise ValueError(
                    f"{self._where}: the column {quote(name)} has a name of more than"
                    f" {LONGEST_NAME:,} characters or invalid Unicode: rename it"
                )


def _list_choices(what: str, choices: Sequence[str]) -> str:
    if not choices:
        return ""
    names = ", ".join(map(quote, choices))
    return f"{len(choices)} columns that may hold the {what} ({names})"


def _explain(columns: Sequence[str]) -> str:
    """Returns a likely reason why columns are not found, and what to do."""
    for character, name in _SEPARATORS.items():
        if len(columns) == 1 and character in columns[0]:
            return (
                f" (the file seems to be separated by {name}: a .csv is separated by"
                " commas, a .tsv by tabs)"
            )
    if any(len(c) > 1 and c[0] == c[-1] == '"' for c in columns):
        return " (names in quotes: a .tsv is read without quotes, save it as .csv)"
    is_row = any(len(column.split()) > 3 for column in columns)
    if is_row or not any(column.isidentifier() for column in columns):
        return " (the first line of a table is its header)"
    if "" in columns:
        return " (columns without a name are not read: name them in the header)"
    if any(column != column.strip() for column in columns):
        return " (names with blanks at their ends: take them out of the header)"
    return ""
