"""Loads the rows of a task from its source: embedded, files, hub, tfds, memory.

Every source first returns a `Table` of strings for each split; `make_task` then names
the labels, checks the rows for the user's mistakes, and makes arrays.
"""

import dataclasses

from sweet_jax.data.embedded import load_embedded
from sweet_jax.data.examples import RawTask, make_task
from sweet_jax.data.find_columns import MAIN_FLAGS, NO_COLUMNS, ColumnFlags, Columns
from sweet_jax.data.folder import load_folder
from sweet_jax.data.hub import load_hub
from sweet_jax.data.in_memory import load_rows
from sweet_jax.data.registered import Loaded, Source
from sweet_jax.data.table_files import load_files
from sweet_jax.data.tasks import Task, get_task
from sweet_jax.data.tfds import load_tfds
from sweet_jax.settings.fields import DataSettings
from sweet_jax.settings.registries import SOURCES


def load_task(settings: DataSettings) -> RawTask:
    """Returns the rows of `settings.task`.

    Raises:
        ValueError: the task is unknown or cannot be reached, or its rows cannot be
            used; the message has the file and the line or row.
    """
    task = get_task(settings.task)
    if settings.metric != "auto":
        task = dataclasses.replace(task, metric=settings.metric)
    return load_raw(task, settings)


def load_raw(task: Task, settings: DataSettings) -> RawTask:
    """Returns the rows of a task that need not be the one of the settings.

    Raises:
        ValueError: see `load_task`.
    """
    tables, names = load_tables(task, settings)
    return make_task(task, tables, names, task.is_curated or settings.allow_empty_text)


def load_tables(
    task: Task,
    settings: DataSettings,
    flags: ColumnFlags = MAIN_FLAGS,
    remembered: Columns = NO_COLUMNS,
) -> Loaded:
    """Returns a task's rows by split as read, and its label names if published.

    Args:
        task: the task.
        settings: files, columns, revision.
        flags: the flags or arguments that name columns, for messages.
        remembered: the columns of a model's training; used if a table has them.

    Raises:
        ValueError: see `load_task`.
    """
    source: Source = SOURCES.lookup(task.kind)
    return source.load(task, settings, flags, remembered)


for _kind, _load in {
    "embedded": lambda task, *_: load_embedded(task),
    "file": load_files,
    "folder": load_folder,
    "tfds": load_tfds,
    "hub": load_hub,
    "rows": load_rows,
}.items():
    SOURCES.register(_kind, Source(_load))
