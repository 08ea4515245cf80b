"""Rows of a hub data set, or of a local folder without tables, through `datasets`."""

import dataclasses
from pathlib import Path

from sweet_jax.data.columns import ask_columns, find_splits, make_table
from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import NO_COLUMNS, ColumnFlags, Columns, find_columns
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.system.network import is_reachable

# Builders that read text files without types, and guess these.
_GUESSING_BUILDERS = ("csv",)


def load_hub(
    task: Task,
    settings: DataSettings,
    flags: ColumnFlags,
    remembered: Columns = NO_COLUMNS,
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of a data set by split, and the label names if published.

    The hub is probed once. If it cannot be reached (or HF_HUB_OFFLINE is set), the
    local cache of `datasets` is used, if it has the data set.

    Args:
        task: its `hub_path` is a local folder or a hub id.
        settings: columns and revision.
        flags: the flags or arguments that name columns, for messages.
        remembered: the columns of a model's training; used if the data have them.

    Raises:
        ValueError: there is no such data set, or neither network nor cache, or its rows
            cannot be used.
    """
    # Takes seconds to import, and only this source needs it.
    import datasets
    from datasets import config, exceptions
    from huggingface_hub import constants

    is_local = Path(task.hub_path).exists()
    online = is_local or (
        not config.HF_HUB_OFFLINE and is_reachable(constants.ENDPOINT)
    )
    # In offline mode datasets reads its cache at once; otherwise it would first retry
    # an unreachable hub for 24 s.
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
                " cache does not hold it: connect, or use local files (data.train_file)"
            )
        raise ValueError(f"data.task={task.name} cannot be loaded: {reason}") from e
    finally:
        config.HF_HUB_OFFLINE = before
    tables: dict[str, Table] = {}
    names = task.label_names
    # The training rows first: they decide the columns, and whether -1 is a class.
    splits = sorted(find_splits(task, loaded), key=lambda pair: pair[1] != "train")
    columns = ask_columns(task, settings)
    values = {
        published: {
            name: loaded[published][name] for name in loaded[published].features
        }
        for published, _ in splits
    }
    for published, _ in splits:
        where = f"{task.name} ({published})"
        columns = find_columns(values[published], where, columns, remembered, flags)
        feature = loaded[published].features[columns.label]
        if isinstance(feature, datasets.ClassLabel):
            names = tuple(feature.names)
    for published, split in splits:
        rows = loaded[published]
        has_minus_one = "train" in tables and "-1" in tables["train"].labels
        where = f"{task.name} ({published})"
        tables[split] = make_table(
            where, values[published], columns, names, flags, has_minus_one
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
