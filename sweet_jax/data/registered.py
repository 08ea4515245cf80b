"""Data sources of other packages: functions from a name to rows.

`register_source("reviews", fn)` makes `data.task=reviews/2024` the rows that
`fn("2024")` returns, and `data.task=reviews` those of `fn("")` (docs/extending.md).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, overload

from sweet_jax.data.columns import SPLIT_NAMES
from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import MAIN_FLAGS, NO_COLUMNS, ColumnFlags, Columns
from sweet_jax.data.in_memory import hold_rows
from sweet_jax.data.tasks import TASKS, Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.settings.registries import SOURCES
from sweet_jax.system.errors import describe_error

# Split -> its rows, and the label names if published.
Loaded: TypeAlias = tuple[dict[str, Table], tuple[str, ...]]
Loader: TypeAlias = Callable[[Task, DataSettings, ColumnFlags, Columns], Loaded]
RowsFn: TypeAlias = Callable[[str], Mapping[str, Any]]


class Source(NamedTuple):
    """A registered source: a function that loads the rows of its tasks."""

    load: Loader


def _check_source(name: str, value: Any) -> None:
    """Raises ValueError if the registered value is not a source."""
    if not isinstance(value, Source):
        raise ValueError(
            f"source {name!r} is a {type(value).__name__}: register it with"
            " sweet_jax.register_source, from a function of a name that returns rows"
        )
    if name in TASKS:
        raise ValueError(f"source {name!r} is the name of a task: choose another name")


SOURCES.check = _check_source


@overload
def register_source(name: str, fn: RowsFn, *, replace: bool = ...) -> RowsFn: ...
@overload
def register_source(
    name: str, fn: None = None, *, replace: bool = ...
) -> Callable[[RowsFn], RowsFn]: ...
def register_source(name: Any, fn: Any = None, *, replace: bool = False) -> Any:
    """Adds a source of data; without `fn`, returns a decorator that does.

    Args:
        name: the part of `data.task` before a slash.
        fn: maps the part after the slash (may be empty) to a dict of splits: `train`,
            and optionally `validation` and `test`. A split may be anything that
            `sweet_jax.train` takes: (text, label) pairs, a dict of columns, a
            DataFrame, a `datasets.Dataset`.
        replace: replace an earlier registration of the name.

    Raises:
        ValueError: the name is taken, or is the name of a task.
    """
    if fn is None:
        SOURCES.check_new(name, replace)
        return lambda fn: register_source(name, fn, replace=replace)
    rows_fn: RowsFn = fn
    if not callable(rows_fn):
        raise ValueError(
            f"source {name!r} is a {type(fn).__name__}: give a function of a name that"
            " returns rows"
        )

    def load(
        task: Task,
        settings: DataSettings,
        flags: ColumnFlags = MAIN_FLAGS,
        remembered: Columns = NO_COLUMNS,
    ) -> Loaded:
        return _load(rows_fn, task, settings, flags, remembered)

    SOURCES.register(name, Source(load), replace=replace)
    return fn


def _load(
    rows_fn: RowsFn,
    task: Task,
    settings: DataSettings,
    flags: ColumnFlags,
    remembered: Columns,
) -> Loaded:
    """Returns the rows of a task from another package's source.

    Raises:
        ValueError: the source fails, or does not return rows.
    """
    where = f"data.task={task.name}"
    try:
        splits = rows_fn(task.hub_path)
    except Exception as error:  # Another package's code may raise anything.
        raise ValueError(
            f"{where} cannot be loaded: its source fails ({describe_error(error)})"
        ) from error
    if not isinstance(splits, Mapping) or not splits.keys() <= {*SPLIT_NAMES}:
        found = (
            f"the splits {', '.join(map(str, splits))}"
            if isinstance(splits, Mapping)
            else f"a {type(splits).__name__}"
        )
        raise ValueError(
            f"{where}: its source returns {found}; expected a dict of rows by split,"
            f" with names of {', '.join(SPLIT_NAMES)}"
        )
    named = {SPLIT_NAMES[name]: rows for name, rows in splits.items()}
    if "train" not in named:
        raise ValueError(f"{where}: its source returns no split `train`")
    # The training rows first: they decide the columns.
    ordered = {"train": named.pop("train")} | named
    texts = settings.text_columns or task.text_columns or remembered.texts
    label = settings.label_column or task.label_column or remembered.label
    try:
        held = hold_rows(ordered, texts or None, label or None, flags)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return held.tables, held.label_names
