"""What a Python program hands over as rows, of any kind, as a table of strings."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sweet_jax.data.columns import name_label
from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import (
    NO_COLUMNS,
    SAMPLE_ROWS,
    ColumnFlags,
    Columns,
    find_columns,
)
from sweet_jax.data.rows import holds_surrogates, quote
from sweet_jax.system.files import show

_ALLOWED = (
    "a list of (text, label) pairs, texts with label=[...], a dict of columns, a pandas"
    " DataFrame, a datasets.Dataset, or the path of a .csv, .tsv or .jsonl file"
)


class PythonRows(NamedTuple):
    """A split before its values are checked.

    Attributes:
        texts: one or two values for each row.
        labels: the label of each row.
        unit: the unit of `positions`, for messages.
        positions: the number of each row, or its index in pandas.
        names: the names of the columns; empty for lists.
        label_names: names by class index, if labels are indices.
    """

    texts: list[tuple[Any, ...]]
    labels: list[Any]
    unit: str
    positions: Sequence[Any]
    names: Columns = NO_COLUMNS
    label_names: tuple[str, ...] = ()


def read_rows(
    data: Any,
    where: str,
    text_columns: tuple[str, ...],
    label: Any,
    flags: ColumnFlags,
) -> PythonRows:
    """Returns the texts and labels of a split of any kind.

    Args:
        data: see `hold_rows`.
        where: name of the split.
        text_columns: one or two; (): found by usual names.
        label: a column, the labels, or None.
        flags: what a person types to name columns, for messages.
    """
    if isinstance(data, np.ndarray):
        data = data.tolist()
    is_list = isinstance(data, list | tuple)
    if is_list and data and isinstance(data[0], Mapping):
        data, is_list = _turn_records(data, where), False
    names = _list_columns(data)
    if not is_list and names is None and not _is_series(data):
        raise ValueError(
            f"{where} is of type {type(data).__name__}: expected {_ALLOWED}"
        )
    if len(data) == 0:
        raise ValueError(f"{where} has no rows: expected {_ALLOWED}")
    if not is_list and names is not None:
        return _read_table(data, names, where, text_columns, label, flags)
    if where == "train" and (text_columns or isinstance(label, str)):
        name = label if isinstance(label, str) else text_columns[0]
        raise ValueError(
            f"train has no columns, so no column {quote(name)}: give (text, label)"
            " pairs without text and label, or label=[...] beside the texts"
        )
    columns = _read_list(list(data), where, None if isinstance(label, str) else label)
    return columns._replace(**_find_positions(data, len(columns.texts)))


def _read_table(
    data: Any,
    names: list[Any],
    where: str,
    text_columns: tuple[str, ...],
    label: Any,
    flags: ColumnFlags,
) -> PythonRows:
    """Returns the texts and labels of named columns."""
    by_name: dict[str, Any] = {str(name): name for name in names}
    if len(by_name) < len(names):
        twice = next(n for n in by_name if [str(name) for name in names].count(n) > 1)
        raise ValueError(
            f"{where} has two columns of the same name {quote(twice)}: rename or drop"
            " one"
        )
    given = label if _is_sequence(label) else None
    asked_label = "" if given is not None else label or ""
    if not isinstance(asked_label, str):
        raise ValueError(
            f"label={asked_label!r}: expected the name of a column, or a list of labels"
        )
    samples: dict[str, list[Any]] = {}
    for name, key in by_name.items():
        if not _is_sequence(data[key]):
            raise ValueError(
                f"{where}: column {quote(name)} is {_describe(data[key])},"
                " expected a list"
            )
        samples[name] = list(data[key][:SAMPLE_ROWS])
    text_columns, label_column, _ = found = find_columns(
        samples,
        where,
        Columns(text_columns, asked_label),
        flags=flags,
        needs_label=given is None,
    )
    values = [list(data[by_name[name]]) for name in text_columns]
    labels = list(data[by_name[label_column]] if given is None else given)
    lengths = {name: len(v) for name, v in zip(text_columns, values, strict=True)}
    _check_lengths(where, {**lengths, label_column or "label": len(labels)})
    label_names: tuple[str, ...] = ()
    features = getattr(data, "features", None)
    if given is None and hasattr(features, "__getitem__"):
        feature = features[label_column]  # type: ignore[index]
        label_names = tuple(getattr(feature, "names", ()) or ())
    return PythonRows(
        list(zip(*values, strict=True)),
        labels,
        names=found,
        label_names=label_names,
        **_find_positions(data, len(labels)),
    )


def _read_list(rows: Sequence[Any], where: str, label: Any) -> PythonRows:
    """Returns the texts and labels of a list of (text, label) pairs, or of texts."""
    if label is not None:
        if not _is_sequence(label):
            raise ValueError(
                f"label={label!r}: expected the name of a column, or a list of labels"
            )
        texts, labels = list(rows), list(label)
        _check_lengths(where, {"texts": len(texts), "labels": len(labels)})
    else:
        for i, row in enumerate(rows):
            if not isinstance(row, tuple | list) or len(row) != 2:
                raise ValueError(
                    f"{where} row {i} is {_describe(row)}, expected a (text, label)"
                    f" pair{_suggest_labels(where, row)}"
                )
        texts, labels = [row[0] for row in rows], [row[1] for row in rows]
    widths = {len(text) if isinstance(text, tuple | list) else 1 for text in texts}
    if not widths <= {1} and widths != {2}:
        raise ValueError(
            f"{where} mixes texts and (text, text) pairs, or has tuples of another"
            " length: give one kind"
        )
    as_tuples = [
        tuple(text) if isinstance(text, tuple | list) else (text,) for text in texts
    ]
    return PythonRows(as_tuples, labels, "row", range(len(labels)))


def _suggest_labels(where: str, row: Any) -> str:
    if not isinstance(row, str):
        return ""
    if where == "train":
        return ", or label=[...] beside the texts"
    return ", such as list(zip(texts, labels))"


def _turn_records(rows: Sequence[Any], where: str) -> dict[str, list[Any]]:
    """Returns a list of dicts as a dict of columns."""
    names = list(rows[0])
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"{where} row {i} is {_describe(row)}, expected a dict like row 0"
            )
        if lacking := [name for name in names if name not in row]:
            raise ValueError(f"{where} row {i} has no {quote(str(lacking[0]))}")
    return {name: [row[name] for row in rows] for name in names}


def make_table(columns: PythonRows, where: str, kinds: dict[str, str]) -> Table:
    """Returns the checked strings of a split.

    Args:
        columns: the values of the split.
        where: the name of the split.
        kinds: type of label -> the first row with it; extended here.
    """

    def locate(i: int) -> str:
        return f"{where} {columns.unit} {show(str(columns.positions[i]))}"

    for i, texts in enumerate(columns.texts):
        for text in texts:
            if is_missing(text):
                raise ValueError(
                    f"{locate(i)} has no text ({text}): fill it or drop the row"
                )
            if not isinstance(text, str):
                raise ValueError(
                    f"{locate(i)} has {_describe(text)} as its text, expected a string:"
                    " convert it, or name another column in text"
                )
            if holds_surrogates(text):
                raise ValueError(
                    f"{locate(i)} has a lone surrogate in its text, which is not valid"
                    " Unicode"
                )
    labels = []
    for i, value in enumerate(columns.labels):
        name, kind = _name_label(value, columns.label_names)
        if not name:
            what = "has no label" if is_missing(value) else "has a label"
            raise ValueError(
                f"{locate(i)} {what} ({_describe(value)}), expected a string, an"
                " integer or a boolean: fill or convert it, or drop the row"
            )
        kinds.setdefault(kind, f"{locate(i)} is {_describe(value)}")
        if len(kinds) > 1:
            raise ValueError(
                f"labels are of mixed types: {' and '.join(kinds.values())}: convert"
                " them to one type"
            )
        labels.append(name)
    return Table(
        where=where,
        unit=columns.unit,
        positions=columns.positions,
        row_ids=range(len(labels)),
        texts=[str(texts[0]) for texts in columns.texts],
        pairs=[str(texts[1]) for texts in columns.texts]
        if len(columns.texts[0]) == 2
        else None,
        labels=labels,
        columns=columns.names,
    )


def _name_label(value: Any, names: tuple[str, ...]) -> tuple[str, str]:
    """Returns the class name of a label, empty if it has none, and the label's type."""
    if isinstance(value, np.generic):
        value = value.item()
    kind = type(value).__name__ if not isinstance(value, str) else "str"
    if names and isinstance(value, int):
        return (names[value] if 0 <= value < len(names) else ""), kind
    return name_label(value), kind


def is_missing(value: Any) -> bool:
    """Returns whether a value stands for a missing one: None, NaN, NA or NaT."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _describe(value: Any) -> str:
    """Returns a short value with its type, for messages."""
    if isinstance(value, np.generic):
        value = value.item()
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
    if value is None:
        return shown
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} {show(shown)}"


def count_texts(texts: int) -> str:
    """Returns the number of texts of a row, for messages."""
    return "one text" if texts == 1 else "two texts"


def _check_lengths(where: str, lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{show(n)} {count:,}" for n, count in lengths.items())
        raise ValueError(
            f"{where} has columns of different lengths ({found}): give one label for"
            " each text"
        )


def _list_columns(data: Any) -> list[Any] | None:
    """Returns the column names of a dict, a DataFrame or a datasets.Dataset."""
    if isinstance(data, Mapping):
        return list(data)
    for attribute in ("column_names", "columns"):
        names = getattr(data, attribute, None)
        # A streaming data set of `datasets` may have columns, but no length.
        if names is not None and hasattr(data, "__len__"):
            return list(names)
    return None


def _is_series(data: Any) -> bool:
    """Returns whether this is a pandas Series, or behaves like one."""
    return hasattr(data, "to_numpy") and getattr(data, "ndim", 1) == 1


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping)


def _find_positions(data: Any, count: int) -> dict[str, Any]:
    """Returns unit and positions of the rows: their numbers, or the pandas index."""
    index = getattr(data, "index", None)
    if index is None or isinstance(index, Callable) or len(index) != count:
        return {"unit": "row", "positions": range(count)}
    return {"unit": "index", "positions": list(index)}
