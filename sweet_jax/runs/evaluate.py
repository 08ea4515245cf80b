"""Evaluates a finished run on other data, with the run's model and calibration."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax import report
from sweet_jax.arrays import save_npz
from sweet_jax.data.examples import Examples, Table, make_examples
from sweet_jax.data.find_columns import NO_COLUMNS, ColumnFlags, Columns
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
from sweet_jax.data.tasks import get_task, is_path
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
from sweet_jax.serving.load import load
from sweet_jax.settings.fields import DataSettings, Settings, compute_digest
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system import checksums
from sweet_jax.system.files import read_object, write_folder, write_json

logger = logging.getLogger(__name__)

_TEST = "logits_test.npz"

_FLAGS = ColumnFlags("--text_columns", "--label_column")


def evaluate_on(
    run: Path,
    data: str,
    text_columns: tuple[str, ...] = (),
    label_column: str = "",
    output: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measures a finished run on labelled rows that it has not seen.

    Temperatures, learning-to-exit ranges and thresholds come from the run's own
    calibration rows.

    Args:
        run: work directory of a finished run.
        data: a .jsonl, .csv or .tsv file, or a folder or the name of a task (its test
            rows, else its validation rows, else all).
        text_columns: one or two columns; (): those of the run if the data have them,
            else columns with usual names.
        label_column: column of the labels, which are matched by name with those of
            training; empty: chosen like text_columns.
        output: output directory; None: `RUN/evaluations/NAME`.

    Returns:
        The content of results.json, and its directory.

    Raises:
        ValueError: the run is not finished, its files are damaged, the data are wrong
            or have a label that does not occur in training, or the output directory
            holds something else than this evaluation, which is not made twice.
    """
    start = time.perf_counter()
    settings = from_config_dict(read_settings(run))
    configure_jax(settings.encoder.matmul_precision)
    if not (run / RESULTS).is_file():
        raise WorkdirError(f"{run} is not finished: run its command again first")
    for name in (RESULTS, MODEL):
        checksums.check_recorded(run, name, REMEDY)
    old = read_object(run / RESULTS, REMEDY)
    path = output or run / "evaluations" / (Path(data).stem or data)
    if not _is_empty(path) and not (path / RESULTS).is_file():
        raise WorkdirError(f"{path} is not empty: name another --output")
    label_names = tuple(old["label_names"])
    classifier = load(run / MODEL, settings.evaluate.batch_size)
    description = classifier.description
    table = load_table(
        data,
        Columns(text_columns, label_column),
        Columns(description.text_columns, description.label_column),
    )
    rows = make_examples(table, label_names, settings.data.allow_empty_text)
    if description.has_pairs != (rows.pairs is not None):
        wanted = "pairs of texts" if description.has_pairs else "single texts"
        raise SettingsError(
            f"{data}: the run was trained on {wanted}; name them in --text_columns"
        )
    digest = compute_digest(
        {
            "data": data,
            "model": description.digest,
            "rows": list_keys(rows.texts, rows.pairs),
            "labels": rows.labels.tolist(),
        }
    )
    if not _is_empty(path):
        return _read_again(path, digest), path
    load_seconds = time.perf_counter() - start
    start = time.perf_counter()
    logger.info("computing the outputs of all exits on %d rows", len(rows))
    bank = classifier.collect(rows)
    evaluation = evaluate_banks(
        CascadeSpec.from_settings(
            settings, len(classifier.description.member_exits) > 1
        ),
        test=bank,
        calibration=classifier.calibration,
        # The baseline predicts the majority class of training, not of the new rows.
        train_label_counts_C=np.asarray(old["train_label_counts"]),
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
        # They are scores on the test rows of the run, and their models are not kept.
        "baselines": None,
        "evaluation_digest": digest,
        "truncated_rows": {"test": classifier.tokenize(rows).truncated_rows},
        "seconds": {
            "load": round(load_seconds, 2),
            "compile": 0.0,
            "train": 0.0,
            "evaluate": round(time.perf_counter() - start, 2),
        },
    }
    with write_folder(path) as folder:
        bank.save(folder / _TEST, description.digest)
        save_npz(folder / CURVES, evaluation.arrays)
        write_json(folder / RESULTS, results)
        checksums.record(folder, _TEST, CURVES, RESULTS)
        report.write_report(folder)
    return results, path


def _is_empty(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _read_again(path: Path, digest: str) -> dict[str, Any]:
    """Returns the results of a finished evaluation of the same model and rows.

    A command that is stopped after its last file was written is started again.

    Raises:
        WorkdirError: it is another evaluation.
    """
    results = report.read_results(path)
    if results.get("evaluation_digest") != digest:
        raise WorkdirError(
            f"{path} holds results of another model or other rows: name another"
            " --output"
        )
    return results


def load_table(
    data: str, asked: Columns = NO_COLUMNS, remembered: Columns = NO_COLUMNS
) -> Table:
    """Returns labelled rows of a file, a folder or a task.

    Args:
        data: a file, or the name of a task: its test rows, else its validation rows,
            else all.
        asked: columns that the user names; the columns of a task have priority.
        remembered: columns of the training, used if the data have them.

    Raises:
        ValueError: there are no such data, or their rows are unusable.
    """
    path = Path(data)
    if path.exists() and not path.is_dir():
        fields = {"test": "--data"}
        return read_splits({"test": (path,)}, fields, asked, _FLAGS, remembered)["test"]
    if is_path(data) and not path.exists():
        raise SettingsError(f"--data={data}: there is no such file or folder")
    task = get_task(data)
    columns = DataSettings(
        text_columns=() if task.text_columns else asked.texts,
        label_column=asked.label,
    )
    tables, _ = load_tables(task, columns, _FLAGS, remembered)
    for split in ("test", "validation", "all", "train"):
        if split in tables and len(tables[split].labels):
            return tables[split]
    raise SettingsError(f"--data={data} has no labelled rows of a known split")


def _describe(
    table: Table, rows: Examples, label_names: tuple[str, ...]
) -> Iterator[str]:
    """Yields notes about the evaluated rows."""
    yield from table.notes
    yield from describe_texts(table.texts, table.pairs, table.locate)
    keys = list_keys(rows.texts, rows.pairs)
    yield from describe_repeats(keys, "test", table.locate)
    counts = np.bincount(rows.labels, minlength=len(label_names))
    yield from describe_absent_classes(counts, "test", label_names)


def _compare_with_training(
    settings: Settings, table: Table, rows: Examples
) -> list[str]:
    """Returns a note if evaluated rows were also training rows of the run."""
    if get_task(settings.data.task).kind not in ("embedded", "file", "folder"):
        return []  # Reading the task again may need a network.
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
