"""Rows of tensorflow-datasets, an optional extra."""

import importlib
import urllib.parse
from collections.abc import Iterable
from typing import Any

import numpy as np

from sweet_jax.data.columns import ask_columns, find_splits, make_table
from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import NO_COLUMNS, ColumnFlags, Columns, find_columns
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.system.network import is_reachable
from sweet_jax.system.packages import install_extra

# Time limit for all servers of a data set together.
_PROBE_SECONDS = 8.0


def load_tfds(
    task: Task,
    settings: DataSettings,
    flags: ColumnFlags,
    remembered: Columns = NO_COLUMNS,
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of a data set by split, and the label names if published.

    If its servers cannot be reached, it must already be prepared on this disk.

    Raises:
        ValueError: the extra is not installed, there is no such data set, or neither
            network nor prepared files, or its rows cannot be used.
    """
    try:
        tf = importlib.import_module("tensorflow")
        tfds = importlib.import_module("tensorflow_datasets")
        # Only this import registers the GLUE builders.
        importlib.import_module("tensorflow_datasets.text")
        # Otherwise TensorFlow would reserve the accelerator's memory.
        tf.config.set_visible_devices([], "GPU")
        builder = tfds.builder(task.hub_path)
        if not builder.is_prepared():
            _check_servers(builder.url_infos or ())
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"data.task={task.name} needs {error.name}, which is not installed:"
            f" {install_extra('tfds')}"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"data.task={task.name} cannot be loaded: {reason}") from error
    features = builder.info.features
    columns = ask_columns(task, settings)
    names = task.label_names
    tables: dict[str, Table] = {}
    for published, split in find_splits(task, builder.info.splits):
        rows = list(tfds.as_numpy(builder.as_dataset(split=published)))
        values = {name: [_to_python(row[name]) for row in rows] for name in features}
        where = f"{task.name} ({published})"
        columns = find_columns(values, where, columns, remembered, flags)
        if isinstance(features[columns.label], tfds.features.ClassLabel):
            names = tuple(features[columns.label].names)
        tables[split] = make_table(where, values, columns, names, flags)
    return tables, names


def _check_servers(urls: Iterable[str]) -> None:
    """Raises ValueError if no server responds; tfds would retry for minutes.

    One that responds is enough: tfds itself reports the others.
    """
    parts = [urllib.parse.urlsplit(url) for url in urls]
    servers = sorted({f"{part.scheme}://{part.netloc}" for part in parts})
    if not servers:
        return
    seconds = _PROBE_SECONDS / len(servers)
    if not any(is_reachable(server, seconds) for server in servers):
        names = [server.partition("://")[2] for server in servers]
        raise ValueError(
            f"it is not on this disk and out of reach ({', '.join(names[:3])}):"
            " connect, or use local files (data.train_file)"
        )


def _to_python(value: Any) -> Any:
    """Converts bytes to text and numpy scalars to Python scalars."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value
