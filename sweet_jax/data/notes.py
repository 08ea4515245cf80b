"""What is odd about rows but no error: notes for whoever reads the results.

A note says how many rows, out of how many, and where the first stands. Nothing is
changed: what is odd in one file is meant in another.
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
# UTF-8 that was read as Windows-1252 and saved again: what became of é and of quotes.
_TWICE_ENCODED = re.compile("Ã[\u0080-\u00bf]|â€|ðŸ")
# With fewer classes a class of one row is no sign of a wrong column.
_MANY_CLASSES = 20
# Share of a set's rows beyond which repeated or cut texts are more than chance.
_NOTABLE_SHARE = 0.1


def stands_for_missing(text: str) -> bool:
    """Returns whether a text is what programs write for a missing value."""
    return text.strip().casefold() in _MISSING


def fold_label(label: str) -> str:
    """Returns what labels that a person takes for the same have in common.

    Case, blanks, invisible characters and forms of Unicode are left out; of numbers
    only the value counts (1, 1.0 and 01).
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
            "a text such as 'cafÃ©', which was UTF-8 and read as Windows-1252",
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
    """Returns a note where training rows of the same text have different labels.

    Args:
        keys: of `list_keys`.
        labels: names by row.
        locate: says where a row stands.
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
        f"{_count(affected, len(keys), 'training rows')} have a text that stands there"
        f" with another label, too (first: {quote(labels[one])} at {locate(one)},"
        f" {quote(labels[other])} at {locate(other)})"
    ]


def describe_repeats(keys: Sequence[str], name: str, locate: Locate) -> list[str]:
    """Returns a note where more than a tenth of the rows repeat an earlier text."""
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
    """Returns a note where rows of one set have the text of rows of another."""
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
    """Returns a note where a set of rows lacks classes.

    Args:
        counts: rows by class index.
        name: of the set.
        label_names: of the classes.
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
    """Returns a note where more than a tenth of the texts are cut."""
    if num_cut <= _NOTABLE_SHARE * num_rows:
        return []
    return [
        f"{_count(num_cut, num_rows, f'{name} rows')} are longer than {max_length}"
        " tokens (data.max_length) and are cut"
    ]


def list_keys(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """Returns what rows are compared by: their texts without case and blanks."""

    def fold(text: str) -> str:
        return " ".join(text.split()).casefold()

    if pairs is None:
        return [fold(text) for text in texts]
    # No text holds the separator: blanks are single ones by now.
    return [
        f"{fold(text)}\n{fold(pair)}" for text, pair in zip(texts, pairs, strict=True)
    ]


def _count(part: int, whole: int, rows: str) -> str:
    return f"{part:,} of {whole:,} {rows} ({100 * part / whole:.1f} %)"
