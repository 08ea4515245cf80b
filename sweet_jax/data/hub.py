"""Rows of a hub data set, or of a local folder of data files, through datasets."""

from pathlib import Path

from sweet_jax.data.columns import find_splits, make_table
from sweet_jax.data.examples import RawTask, Table, make_task
from sweet_jax.data.tasks import Task
from sweet_jax.network import is_reachable
from sweet_jax.settings import DataSettings


def load_hub(task: Task, settings: DataSettings) -> RawTask:
    """Returns the rows of a hub data set, or of a local folder of data files.

    The hub is probed once; where it is out of reach (or HF_HUB_OFFLINE is set) the
    local cache of `datasets` serves, if it holds the data set.

    Args:
        task: its `hub_path` is a local folder or a hub id.
        settings: columns and revision.

    Raises:
        ValueError: no such data set, no network and no cache, or unusable rows.
    """
    # Takes seconds to import, and only this source needs it.
    import datasets
    from datasets import config, exceptions
    from huggingface_hub import constants

    is_local = Path(task.hub_path).exists()
    online = is_local or (
        not config.HF_HUB_OFFLINE and is_reachable(constants.ENDPOINT)
    )
    # Told that it is offline, datasets goes straight to its cache; otherwise it would
    # retry an unreachable hub for 24 s first.
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, not online
    try:
        loaded = datasets.load_dataset(
            task.hub_path,
            task.hub_config or None,
            trust_remote_code=False,
            revision=None if is_local else settings.revision or None,
        )
    except (OSError, ValueError, RuntimeError, exceptions.DatasetsError) as e:
        reason = " ".join(str(e).split())[:300]
        if not online:
            reason = (
                f"the hub ({config.HF_ENDPOINT}) is out of reach and the local"
                " cache does not hold it: connect, or use local files (data.task=file)"
            )
        raise ValueError(f"data.task={task.name} cannot be loaded: {reason}") from e
    finally:
        config.HF_HUB_OFFLINE = before
    tables: dict[str, Table] = {}
    names = task.label_names
    label_column = task.label_column or settings.label_column
    for published, split in find_splits(task, loaded):
        rows = loaded[published]
        if isinstance(label := rows.features.get(label_column), datasets.ClassLabel):
            names = tuple(label.names)
        columns = {name: rows[name] for name in rows.column_names}
        tables[split] = make_table(task, settings, published, columns, names)
    return make_task(task, tables, names, task.is_curated or settings.allow_empty_text)
