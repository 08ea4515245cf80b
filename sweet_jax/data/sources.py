"""Rows of a task from where they are published: embedded, files, hub, tfds.

Whatever the source, a split becomes a `Table` of strings first; `make_task` then
names the labels, checks what a person can get wrong, and makes arrays.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

from sweet_jax.data.columns import MAIN_FLAGS, ColumnFlags
from sweet_jax.data.embedded import load_embedded
from sweet_jax.data.examples import RawTask, Table, make_task
from sweet_jax.data.folder import load_folder
from sweet_jax.data.hub import load_hub
from sweet_jax.data.table_files import load_files
from sweet_jax.data.tasks import Task, get_task
from sweet_jax.data.tfds import load_tfds
from sweet_jax.settings.fields import DataSettings

# Rows by split, and the label names where they are published.
_Loaded: TypeAlias = tuple[dict[str, Table], tuple[str, ...]]


def load_task(settings: DataSettings) -> RawTask:
    """Returns the rows of `settings.task`.

    Raises:
        ValueError: the task is unknown or out of reach, or its rows cannot be used; one
            line with the file and the line or row.
    """
    task = get_task(settings.task)
    if settings.metric != "auto":
        task = dataclasses.replace(task, metric=settings.metric)
    raw = load_raw(task, settings)
    if task.metric == "f1" and len(raw.label_names) != 2:
        raise ValueError(
            f"data.metric=f1 is the F1 of class 1 of two, but {settings.task} has"
            f" {len(raw.label_names)} classes: set data.metric=accuracy or matthews"
        )
    return raw


def load_raw(task: Task, settings: DataSettings) -> RawTask:
    """Returns the rows of a task, whatever its name and metric.

    Raises:
        ValueError: see `load_task`.
    """
    tables, names = load_tables(task, settings)
    return make_task(task, tables, names, task.is_curated or settings.allow_empty_text)


def load_tables(
    task: Task, settings: DataSettings, flags: ColumnFlags = MAIN_FLAGS
) -> _Loaded:
    """Returns a task's rows by split as read, and its label names where published.

    Args:
        task: the task.
        settings: files, columns, revision.
        flags: what a person types to name columns, for messages.

    Raises:
        ValueError: see `load_task`.
    """
    return _LOADERS[task.kind](task, settings, flags)


_LOADERS: dict[str, Callable[[Task, DataSettings, ColumnFlags], _Loaded]] = {
    "embedded": lambda task, *_: load_embedded(task),
    "file": load_files,
    "folder": load_folder,
    "tfds": load_tfds,
    "hub": load_hub,
}
