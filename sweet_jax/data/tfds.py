"""Rows of tensorflow-datasets, an optional extra."""

import importlib
import urllib.parse
from collections.abc import Iterable
from typing import Any

import numpy as np

from sweet_jax.data.columns import ColumnFlags, find_splits, make_table
from sweet_jax.data.examples import Table
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.system.network import is_reachable

# For all servers of a data set together.
_PROBE_SECONDS = 8.0


def load_tfds(
    task: Task, settings: DataSettings, flags: ColumnFlags
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of a data set by split, and the label names if published.

    Where its servers are out of reach, it must have been prepared on this disk before.

    Raises:
        ValueError: the extra is not installed, no such data set, no network and no
            prepared files, or unusable rows.
    """
    try:
        tf = importlib.import_module("tensorflow")
        tfds = importlib.import_module("tensorflow_datasets")
        # The GLUE builders are registered by this import only.
        importlib.import_module("tensorflow_datasets.text")
        # TensorFlow would otherwise take the accelerator's memory.
        tf.config.set_visible_devices([], "GPU")
        builder = tfds.builder(task.hub_path)
        if not builder.is_prepared():
            _check_servers(builder.url_infos or ())
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"data.task={task.name} needs {error.name}, which is not installed:"
            " pip install 'sweet_jax[tfds]'"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"data.task={task.name} cannot be loaded: {reason}") from error
    features = builder.info.features
    label_column = task.label_column or settings.label_column
    names = task.label_names
    if label_column in features and isinstance(
        features[label_column], tfds.features.ClassLabel
    ):
        names = tuple(features[label_column].names)
    tables: dict[str, Table] = {}
    for published, split in find_splits(task, builder.info.splits):
        rows = list(tfds.as_numpy(builder.as_dataset(split=published)))
        columns = {name: [_to_python(row[name]) for row in rows] for name in features}
        tables[split] = make_table(task, settings, published, columns, names, flags)
    return tables, names


def _check_servers(urls: Iterable[str]) -> None:
    """Raises ValueError if none of the servers answers; tfds would retry for minutes.

    One that answers is enough: of those that do not, tfds itself tells.
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
            " connect, or use local files (data.task=file)"
        )


def _to_python(value: Any) -> Any:
    """Returns bytes as text and numpy scalars as Python's."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value
