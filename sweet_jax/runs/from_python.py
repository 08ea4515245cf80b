"""Training from Python, on rows in memory or in files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweet_jax.data.in_memory import HeldRows, hold_rows
from sweet_jax.data.rows import COMPRESSED, find_format
from sweet_jax.runs.run import Run
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.keywords import nest_keywords
from sweet_jax.settings.rules import SettingsError


def train(
    train: Any,
    test: Any = None,
    *,
    text: str | Sequence[str] | None = None,
    label: Any = None,
    encoder: str | os.PathLike[str] | None = None,
    method: str | None = None,
    workdir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Trains a classifier with exits, measures it, and returns the run.

        run = sweet_jax.train(frame, text="message", label="category")
        run.classifier.predict(["where is my parcel?"], speedup=2)

    The same call with the same work directory resumes where an earlier one stopped, or
    returns the finished run at once.

    Args:
        train: (text, label) pairs, texts with `label=[...]`, dicts, a dict of columns,
            a pandas DataFrame, a `datasets.Dataset` or DatasetDict, a .csv, .tsv or
            .jsonl file, a folder of such files, or the name of a task as `data.task`
            takes it. A text is a string, or a (text, text) tuple for tasks of pairs.
        test: test rows in the same form; None: they are split off the training rows,
            see `results["origin"]`.
        text: the text column, or two for pairs; None: columns with usual names.
        label: the label column; or the labels of the training rows.
        encoder: `encoder.name`: an embedded encoder, a folder or a hub id.
        method: how the exits are trained, such as `sweet` or `early_exit`.
        workdir: directory for the run's files; None: the default of the command,
            `runs/{task}-{encoder}-{method}-s{seed}-{digest}` in the current directory.
        quiet: whether to hide the progress.
        **settings: fields by name (`num_epochs=2`), with their section if the name is
            ambiguous (`**{"evaluate.batch_size": 32}`); see docs/python.md.

    Raises:
        ValueError: an input or a setting is wrong, or the work directory contains
            another run; the message is one line.
    """
    rows, fields = _find_data(train, test, text, label)
    parsed = make_settings(encoder, method, fields, settings)
    # Imported here: a wrong setting is reported before jax loads.
    from sweet_jax.runs import pipeline

    path, _ = pipeline.run(parsed, None if workdir is None else Path(workdir), quiet)
    del rows  # Kept alive until here, because settings refer to them by task name only.
    return Run(path)


def make_settings(
    encoder: str | os.PathLike[str] | None,
    method: str | None,
    data: dict[str, Any],
    keywords: dict[str, Any],
) -> Settings:
    """Returns the settings of a run from Python arguments.

    Args:
        encoder: see `train`.
        method: see `train`.
        data: fields of the section `data` that are derived from the rows.
        keywords: further fields by name; see `nest_keywords`.

    Raises:
        SettingsError: a name is unknown or given twice, or a value is not allowed.
    """
    named = {
        "encoder.name": os.fspath(encoder)
        if isinstance(encoder, os.PathLike)
        else encoder,
        "method": method,
        **{f"data.{name}": value for name, value in data.items()},
    }
    given = {name: value for name, value in named.items() if value is not None}
    if twice := given.keys() & keywords.keys():
        raise SettingsError(
            f"{min(twice)} is given twice: another argument sets it, so drop one of"
            " the two"
        )
    return from_config_dict(nest_keywords({**given, **keywords}))


def _find_data(
    train: Any, test: Any, text: str | Sequence[str] | None, label: Any
) -> tuple[HeldRows | None, dict[str, Any]]:
    """Returns the rows, if they are in memory, and the fields of `data` that name them.

    Raises:
        ValueError: the rows cannot be used, or are partly in files.
    """
    columns = (text,) if isinstance(text, str) else tuple(text or ())
    fields: dict[str, Any] = {"text_columns": columns or None}
    if isinstance(label, str):
        fields["label_column"] = label
    if isinstance(train, str | os.PathLike):
        if test is not None and not isinstance(test, str | os.PathLike):
            raise ValueError(
                f"train is a file and test of type {type(test).__name__}: give both as"
                " files, or both in memory"
            )
        if label is not None and not isinstance(label, str):
            raise ValueError(
                f"label is of type {type(label).__name__}: rows of files have their"
                " labels in a column, so give its name"
            )
        return None, fields | _name_files(os.fspath(train), test)
    if isinstance(test, str | os.PathLike):
        raise ValueError(
            f"train is of type {type(train).__name__} and test a file: give both as"
            " files, or both in memory"
        )
    splits = {"train": train}
    if _is_dataset_dict(train):
        splits = dict(train)
        if "train" not in splits:
            raise ValueError(
                f"train has the splits {', '.join(splits)} and no split 'train': give"
                " one of them alone"
            )
        used = ("train", "validation", "test")
        splits = {split: splits[split] for split in used if split in splits}
    if test is not None:
        splits["test"] = test
    rows = hold_rows(splits, text, label)
    return rows, fields | {"task": rows.task_name}


def _name_files(train: str, test: str | os.PathLike[str] | None) -> dict[str, str]:
    """Returns the fields for files, a folder or a task."""
    path = Path(train)
    is_file = path.is_file() or find_format(train) or path.suffix.lower() in COMPRESSED
    if is_file and not path.is_dir():
        test_file = "" if test is None else os.fspath(test)
        return {"task": "file", "train_file": train, "test_file": test_file}
    if test is not None:
        what = "a folder" if path.is_dir() else "the name of a task"
        raise ValueError(
            f"train={train!r} is {what}, which has test rows of its own: leave test"
            " out, or give files"
        )
    return {"task": train}


def _is_dataset_dict(data: Any) -> bool:
    """Whether this is a DatasetDict: a dict of data sets from `datasets`."""
    return isinstance(data, dict) and any(
        hasattr(split, "column_names") for split in data.values()
    )
