"""Rows that a Python program passes: lists, tables and data sets.

They become the same tables as files do, so that all later steps (checks, notes, splits,
digests) are the same. The name of their task is a digest of their content: the same
rows resume a run, other rows start another run.
"""

import hashlib
import json
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import ColumnFlags
from sweet_jax.data.python_rows import count_texts, make_table, read_rows
from sweet_jax.data.tasks import Task

# The arguments that name columns, for messages.
_FLAGS = ColumnFlags(text="text", label="label")


class HeldRows:
    """Rows in memory; the name of their task is known as long as this object lives.

    Attributes:
        task_name: the value of `data.task`: `rows-` and 16 hex digits of the content.
        tables: split -> its table.
        label_names: names by class index, if a data set has them; else ().
    """

    def __init__(self, tables: dict[str, Table], label_names: tuple[str, ...]) -> None:
        """Use `hold_rows`."""
        self.tables, self.label_names = tables, label_names
        self.task_name = f"rows-{_compute_digest(tables, label_names)}"


_HELD: weakref.WeakValueDictionary[str, HeldRows] = weakref.WeakValueDictionary()


def hold_rows(
    splits: Mapping[str, Any],
    text: str | Sequence[str] | None = None,
    label: Any = None,
    flags: ColumnFlags = _FLAGS,
) -> HeldRows:
    """Keeps rows in memory as a task, whose name goes into `data.task`.

    Args:
        splits: `train`, and optionally `validation` and `test`; each a list or tuple of
            (text, label) pairs, of texts or of dicts, a dict of columns, a DataFrame, a
            Series of texts or a `datasets.Dataset`. A text may be a (text, text) pair.
        text: the column of texts, or two of them; None: found by usual names.
        label: the column of labels, or the labels of the training rows.
        flags: the flags or arguments that name columns, for messages.

    Raises:
        ValueError: the data is of another kind, a column is missing, a text or a label
            is missing or of another type, or labels are of several types.
    """
    text_columns = (text,) if isinstance(text, str) else tuple(text or ())
    if len(text_columns) > 2:
        raise ValueError(
            f"text names {len(text_columns)} columns: name one, or two for pairs"
        )
    tables: dict[str, Table] = {}
    label_names: tuple[str, ...] = ()
    kinds: dict[str, str] = {}
    width = 0  # Texts per row.
    for split, data in splits.items():
        # A separate list of labels belongs to the training rows.
        own_label = label if split == "train" or isinstance(label, str) else None
        columns = read_rows(data, split, text_columns, own_label, flags)
        if split == "train":
            label_names, width = columns.label_names, len(columns.texts[0])
            # The other splits are read from the same columns as the training rows.
            text_columns = columns.names.texts
            if label is None:
                label = columns.names.label or None
        elif len(columns.texts[0]) != width:
            raise ValueError(
                f"{split} has {count_texts(len(columns.texts[0]))} a row and train has"
                f" {count_texts(width)}: give both in one form"
            )
        tables[split] = make_table(columns, split, kinds)
    held = HeldRows(tables, label_names)
    # Equal rows share one object.
    return _HELD.setdefault(held.task_name, held)


def load_rows(task: Task, *_: Any) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows in memory that a task names, and their label names if known.

    Raises:
        ValueError: the rows are not, or no longer, in the memory of this process.
    """
    held = _HELD.get(task.name)
    if held is None:
        raise ValueError(
            f"data.task={task.name} names rows that were in the memory of a Python"
            " program: call sweet_jax.train with the same rows again"
        )
    return held.tables, held.label_names


def _compute_digest(tables: Mapping[str, Table], names: Iterable[str]) -> str:
    """Returns 16 hex digits of texts, labels and label names."""
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    for split, table in tables.items():
        digest.update(json.dumps([split, table.pairs is not None]).encode())
        pairs = table.pairs or [""] * len(table.labels)
        for row in zip(table.texts, pairs, table.labels, strict=True):
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()[:16]
