"""A finished run on other data: the model folder, the run's calibration, new rows."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax import report
from sweet_jax.arrays import LogitBank, save_npz
from sweet_jax.data.columns import ColumnFlags
from sweet_jax.data.examples import Examples, Table, make_examples
from sweet_jax.data.notes import (
    describe_absent_classes,
    describe_overlap,
    describe_repeats,
    describe_texts,
    list_keys,
)
from sweet_jax.data.sources import load_tables, load_task
from sweet_jax.data.splits import make_locate, make_splits
from sweet_jax.data.table_files import read_splits
from sweet_jax.data.tasks import get_task
from sweet_jax.devices import configure_jax
from sweet_jax.evaluation.banks import CascadeSpec, evaluate_banks
from sweet_jax.runs.workdir import (
    CURVES,
    MODEL,
    REMEDY,
    RESULTS,
    WorkdirError,
    read_settings,
)
from sweet_jax.serving.classifier import load
from sweet_jax.settings.fields import DataSettings, Settings, SettingsError
from sweet_jax.settings.resolve import from_config_dict
from sweet_jax.system import checksums
from sweet_jax.system.files import read_object, write_folder, write_json

_CALIBRATION, _TEST = "logits_calibration.npz", "logits_test.npz"

_FLAGS = ColumnFlags("--text_columns", "--label_column")


def evaluate_on(
    run: Path,
    data: str,
    text_columns: tuple[str, ...] = (),
    label_column: str = "",
    output: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measures a finished run on labelled rows that it has not seen.

    Temperatures, learning-to-exit ranges and thresholds are those of the run's own
    calibration rows.

    Args:
        run: work directory of a finished run.
        data: a .jsonl, .csv or .tsv file, or a folder or the name of a task (its test
            rows, else its validation rows, else all).
        text_columns: one or two; (): those of the run.
        label_column: labels are matched by name with those of training; empty: that of
            the run.
        output: where to write; None: `RUN/evaluations/NAME`.

    Returns:
        What results.json holds, and the directory it lies in.

    Raises:
        ValueError: the run is not finished, its files are damaged, the data are wrong
            or have a label that training lacks, or the output directory is not empty.
    """
    start = time.perf_counter()
    settings = from_config_dict(read_settings(run))
    configure_jax(settings.encoder.matmul_precision)
    if not (run / RESULTS).is_file():
        raise WorkdirError(f"{run} is not finished: run its command again first")
    for name in (RESULTS, _CALIBRATION, MODEL):
        checksums.check_recorded(run, name, REMEDY)
    old = read_object(run / RESULTS, REMEDY)
    path = output or run / "evaluations" / (Path(data).stem or data)
    if path.exists() and any(path.iterdir()):
        raise WorkdirError(f"{path} is not empty: name another --output")
    label_names = tuple(old["label_names"])
    table = load_table(
        data,
        text_columns or settings.data.text_columns,
        label_column or settings.data.label_column,
    )
    rows = make_examples(table, label_names, settings.data.allow_empty_text)
    calibration = LogitBank.load(run / _CALIBRATION, REMEDY)
    classifier = load(run / MODEL, settings.evaluate.batch_size)
    if classifier.description.has_pairs != (rows.pairs is not None):
        wanted = (
            "pairs of texts" if classifier.description.has_pairs else "single texts"
        )
        raise SettingsError(
            f"{data}: the run was trained on {wanted}; name --text_columns"
        )
    load_seconds = time.perf_counter() - start
    start = time.perf_counter()
    bank = classifier.collect(rows)
    evaluation = evaluate_banks(
        CascadeSpec.from_settings(settings, old["metric"]),
        test=bank,
        calibration=calibration,
        temperatures=np.array(classifier.description.temperatures, np.float32),
        # The majority class of the new rows would need their labels: that of training.
        train_label_counts_C=np.asarray(old["train_label_counts"]),
        lte_ranges=classifier.lte_ranges,
    )
    results = {
        **old,
        **evaluation.to_results(),
        "task": f"{data} (trained on {old['task']})",
        "splits": {**old["splits"], "test": len(rows)},
        "origin": {**old["origin"], "test": data},
        "notes": [
            *_describe(table, rows, label_names),
            *_compare_with_training(settings, table, rows),
            *old["notes"],
        ],
        "extra_tests": {},
        "truncated_rows": {"test": classifier.tokenize(rows).truncated_rows},
        "seconds": {
            "load": round(load_seconds, 2),
            "compile": 0.0,
            "train": 0.0,
            "evaluate": round(time.perf_counter() - start, 2),
        },
    }
    with write_folder(path) as folder:
        bank.save(folder / _TEST, classifier.description.digest)
        save_npz(folder / CURVES, evaluation.arrays)
        write_json(folder / RESULTS, results)
        checksums.record(folder, _TEST, CURVES, RESULTS)
        report.write_report(folder)
    return results, path


def load_rows(
    data: str,
    text_columns: tuple[str, ...],
    label_column: str,
    label_names: tuple[str, ...],
) -> Examples:
    """Returns labelled rows with labels numbered as in training.

    Raises:
        ValueError: see `load_table`; or a label that is none of `label_names`.
    """
    table = load_table(data, text_columns, label_column)
    return make_examples(table, label_names, allow_empty_text=False)


def load_table(data: str, text_columns: tuple[str, ...], label_column: str) -> Table:
    """Returns labelled rows of a file, a folder or a task.

    Args:
        data: a file, or the name of a task: its test rows, else its validation rows,
            else all.
        text_columns: one or two; (): those of the task, or found by usual names.
        label_column: of files, and of tasks that name none.

    Raises:
        ValueError: no such data, or rows that cannot be used.
    """
    columns = DataSettings(text_columns=text_columns, label_column=label_column)
    path = Path(data)
    if path.exists() and not path.is_dir():
        return read_splits({"test": (path,)}, {"test": "--data"}, columns, _FLAGS)[
            "test"
        ]
    task = get_task(data)
    if task.text_columns:
        columns = dataclasses.replace(columns, text_columns=())
    tables, _ = load_tables(task, columns, _FLAGS)
    for split in ("test", "validation", "all", "train"):
        if split in tables and len(tables[split].labels):
            return tables[split]
    raise SettingsError(f"--data={data} has no labelled rows of a known split")


def _describe(
    table: Table, rows: Examples, label_names: tuple[str, ...]
) -> Iterator[str]:
    """Yields notes on the rows measured."""
    yield from table.notes
    yield from describe_texts(table.texts, table.pairs, table.locate)
    keys = list_keys(rows.texts, rows.pairs)
    yield from describe_repeats(keys, "test", table.locate)
    counts = np.bincount(rows.labels, minlength=len(label_names))
    yield from describe_absent_classes(counts, "test", label_names)


def _compare_with_training(
    settings: Settings, table: Table, rows: Examples
) -> list[str]:
    """Returns a note where rows measured are rows that the run was trained on."""
    if get_task(settings.data.task).kind not in ("embedded", "file", "folder"):
        return []  # Reading it again may take a network.
    try:
        raw = load_task(settings.data)
        train = make_splits(raw, settings).train
    except ValueError as error:
        return [f"the rows are not compared with those of training: {error}"]
    published = raw.tables["all" if "all" in raw.tables else "train"]
    return describe_overlap(
        list_keys(rows.texts, rows.pairs),
        "test",
        list_keys(train.texts, train.pairs),
        "training",
        table.locate,
        make_locate(train, published),
    )
