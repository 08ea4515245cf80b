"""Notes on suspicious rows that are not errors, for readers of the results.

A note says how many rows are affected, out of how many, and where the first one is. The
rows are not changed, since they may be as intended.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from sweet_jax.data.rows import quote

Locate = Callable[[int], str]  # position of a row -> "train.csv line 7"

_MISSING = frozenset(
    ("nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nil", "undefined")
)
# UTF-8 that was read as Windows-1252 and saved again: how é, quotes and emoji look.
_TWICE_ENCODED = re.compile("Ã[\u0080-\u00bf]|â€|ðŸ")
# With fewer classes, classes of one row do not suggest a wrong column.
_MANY_CLASSES = 20
# A larger half-width of a 95 % interval is worth a note: that of 96 rows or fewer.
_NOTABLE_ERROR = 0.1
# A larger share of repeated or truncated texts in a set is worth a note.
_NOTABLE_SHARE = 0.1


def stands_for_missing(text: str) -> bool:
    """Returns whether a text is a usual placeholder for a missing value."""
    return text.strip().casefold() in _MISSING


def fold_label(label: str) -> str:
    """Normalises a label, so that labels that look the same become equal.

    Case, spaces, invisible characters and forms of Unicode are removed; numbers of the
    same value become equal (1, 1.0 and 01).
    """
    text = unicodedata.normalize("NFKC", label)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = " ".join(text.split()).casefold()
    if re.fullmatch(r"[+-]?[0-9]{1,15}(\.[0-9]{0,15})?", text):
        return repr(float(text) + 0.0)
    return text


def describe_texts(
    texts: Sequence[str], pairs: Sequence[str] | None, locate: Locate
) -> list[str]:
    """Returns notes on the texts of a split."""
    notes = []
    for found, what in (
        (stands_for_missing, "a text such as 'nan', 'None' or 'null': is it missing?"),
        (
            lambda text: "\ufffd" in text,
            "U+FFFD in a text, which stands for characters that an earlier program"
            " could not read",
        ),
        (
            lambda text: _TWICE_ENCODED.search(text) is not None,
            "a text such as 'cafÃ©', which is UTF-8 that was read as Windows-1252",
        ),
    ):
        rows = [
            i
            for i, text in enumerate(texts)
            if found(text) or (pairs is not None and found(pairs[i]))
        ]
        if rows:
            share = _count(len(rows), len(texts), "rows")
            notes.append(f"{share} have {what} (first: {locate(rows[0])})")
    return notes


def describe_labels(labels: Sequence[str], locate: Locate) -> list[str]:
    """Returns notes on the labels of the training rows."""
    notes = []
    counts = Counter(labels)
    first = {label: i for i, label in reversed(list(enumerate(labels)))}
    for label in filter(stands_for_missing, counts):
        notes.append(
            f"{_count(counts[label], len(labels), 'rows')} have the label"
            f" {quote(label)}, which is a class like the others (first:"
            f" {locate(first[label])}): is it a missing value?"
        )
    alike = defaultdict(list)
    for label in counts:
        alike[fold_label(label)].append(label)
    for group in alike.values():
        if len(group) > 1:
            group.sort(key=counts.__getitem__)
            names = ", ".join(f"{quote(name)} ({counts[name]:,})" for name in group[:5])
            notes.append(
                f"the labels {names} are different classes, though they differ only in"
                " case, blanks or how they are written (first:"
                f" {locate(first[group[0]])})"
            )
    rare = [label for label, count in counts.items() if count == 1]
    if len(counts) > _MANY_CLASSES and 2 * len(rare) > len(counts):
        notes.append(
            f"{len(rare):,} of {len(counts):,} classes have one training row only"
            f" (first: {locate(first[rare[0]])}): is the label column the right one?"
        )
    return notes


def describe_contradictions(
    keys: Sequence[str], labels: Sequence[str], locate: Locate
) -> list[str]:
    """Returns a note if training rows with the same text have different labels.

    Args:
        keys: from `list_keys`.
        labels: the label of each row.
        locate: returns the position of a row.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        rows[key].append(i)
    several = [same for same in rows.values() if len({labels[i] for i in same}) > 1]
    if not several:
        return []
    one = several[0][0]
    other = next(i for i in several[0] if labels[i] != labels[one])
    affected = sum(map(len, several))
    return [
        f"{_count(affected, len(keys), 'training rows')} have a text that also occurs"
        f" with another label (first: {quote(labels[one])} at {locate(one)},"
        f" {quote(labels[other])} at {locate(other)})"
    ]


def describe_repeats(keys: Sequence[str], name: str, locate: Locate) -> list[str]:
    """Returns a note if more than a tenth of the rows repeat an earlier text."""
    seen: set[str] = set()
    repeats = []
    for i, key in enumerate(keys):
        if key in seen:
            repeats.append(i)
        seen.add(key)
    if len(repeats) <= _NOTABLE_SHARE * len(keys):
        return []
    share = _count(len(repeats), len(keys), f"{name} rows")
    return [f"{share} repeat the text of an earlier row (first: {locate(repeats[0])})"]


def describe_overlap(
    keys: Sequence[str],
    name: str,
    others: Sequence[str],
    other_name: str,
    locate: Locate,
    locate_other: Locate,
) -> list[str]:
    """Returns a note if rows of one set have the same text as rows of another."""
    known = {key: i for i, key in reversed(list(enumerate(others)))}
    rows = [i for i, key in enumerate(keys) if key in known]
    if not rows:
        return []
    i = rows[0]
    return [
        f"overlap: {_count(len(rows), len(keys), f'{name} rows')} are also"
        f" {other_name} rows, compared by their texts without case and blanks (first:"
        f" {locate(i)}, which is {locate_other(known[keys[i]])})"
    ]


def describe_absent_classes(
    counts: Sequence[int] | np.ndarray, name: str, label_names: Sequence[str]
) -> list[str]:
    """Returns a note if a set has no rows of some classes.

    Args:
        counts: number of rows by class index.
        name: the name of the set.
        label_names: the names of the classes.
    """
    absent = [label for label, n in zip(label_names, counts, strict=True) if not n]
    if not absent:
        return []
    listed = ", ".join(map(quote, absent[:5])) + ", ..." * (len(absent) > 5)
    return [
        f"no {name} row has the class {listed} ({len(absent)} of {len(label_names)}"
        " classes)"
    ]


def describe_cuts(num_cut: int, num_rows: int, name: str, max_length: int) -> list[str]:
    """Returns a note if more than a tenth of the texts are truncated."""
    if num_cut <= _NOTABLE_SHARE * num_rows:
        return []
    return [
        f"{_count(num_cut, num_rows, f'{name} rows')} are longer than {max_length}"
        " tokens (data.max_length) and are cut"
    ]


def describe_precision(num_test: int) -> list[str]:
    """Returns a note if the test rows are too few for a precise accuracy."""
    # Normal approximation at an accuracy of 0.5, where the interval is widest.
    half_width = 0.98 / num_test**0.5
    if half_width <= _NOTABLE_ERROR:
        return []
    return [
        f"scores on {num_test} test rows are rough: with probability 0.95 an accuracy"
        f" is within {half_width:.2f} of that on many rows"
    ]


def list_keys(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """Returns the keys that rows are compared by: texts without case and spaces."""

    def fold(text: str) -> str:
        return " ".join(text.split()).casefold()

    if pairs is None:
        return [fold(text) for text in texts]
    # No folded text contains the separator: all white space is single spaces by now.
    return [
        f"{fold(text)}\n{fold(pair)}" for text, pair in zip(texts, pairs, strict=True)
    ]


def _count(part: int, whole: int, rows: str) -> str:
    return f"{part:,} of {whole:,} {rows} ({100 * part / whole:.1f} %)"
