"""Rows of a hub data set, or of a local folder of no tables, through datasets."""

import dataclasses
from pathlib import Path

from sweet_jax.data.columns import ColumnFlags, find_splits, make_table
from sweet_jax.data.examples import Table
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.system.network import is_reachable

# Of text files without types.
_GUESSING_BUILDERS = ("csv",)


def load_hub(
    task: Task, settings: DataSettings, flags: ColumnFlags
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of a data set by split, and the label names if published.

    The hub is probed once; where it is out of reach (or HF_HUB_OFFLINE is set) the
    local cache of `datasets` serves, if it holds the data set.

    Args:
        task: its `hub_path` is a local folder or a hub id.
        settings: columns and revision.
        flags: what a person types to name columns, for messages.

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
    splits = find_splits(task, loaded)
    for published, _ in splits:
        feature = loaded[published].features.get(label_column)
        if isinstance(feature, datasets.ClassLabel):
            names = tuple(feature.names)
    # The training rows first: they say whether -1 is a class.
    for published, split in sorted(splits, key=lambda pair: pair[1] != "train"):
        rows = loaded[published]
        columns = {name: rows[name] for name in rows.column_names}
        has_minus_one = "train" in tables and "-1" in tables["train"].labels
        tables[split] = make_table(
            task, settings, published, columns, names, flags, has_minus_one
        )
        if rows.info.builder_name in _GUESSING_BUILDERS:
            note = (
                f"{tables[split].where} was read from text files by datasets, which"
                " guesses types: 007 may have become 7, and None may be missing; with"
                " the files in a local folder, data.task=FOLDER keeps text as it is"
            )
            table = tables[split]
            tables[split] = dataclasses.replace(table, notes=(*table.notes, note))
    return tables, names
