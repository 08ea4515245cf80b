"""A finished run on other data: the model folder, the run's calibration, new rows."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax import checksums, report
from sweet_jax.arrays import LogitBank, save_npz
from sweet_jax.data.examples import Examples
from sweet_jax.data.sources import load_task
from sweet_jax.devices import configure_jax
from sweet_jax.evaluation.banks import CascadeSpec, evaluate_banks
from sweet_jax.files import read_object, write_json
from sweet_jax.inference.classifier import load
from sweet_jax.resolve import from_config_dict
from sweet_jax.settings import DataSettings, SettingsError
from sweet_jax.workdir import (
    CURVES,
    MODEL,
    REMEDY,
    RESULTS,
    WorkdirError,
    read_settings,
)

_CALIBRATION, _TEST = "logits_calibration.npz", "logits_test.npz"


def evaluate_on(
    run: Path,
    data: str,
    text_columns: tuple[str, ...] = (),
    label_column: str = "label",
    output: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measures a finished run on labelled rows that it has not seen.

    Temperatures, learning-to-exit ranges and thresholds are those of the run's own
    calibration rows.

    Args:
        run: work directory of a finished run.
        data: a .jsonl, .csv or .tsv file, or the name of a task (its test rows, else
            its validation rows, else all).
        text_columns: one or two; (): found by their usual names.
        label_column: labels are matched by name with those of training.
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
    rows = load_rows(data, text_columns, label_column, tuple(old["label_names"]))
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
        "extra_tests": {},
        "truncated_rows": {"test": classifier.tokenize(rows).truncated_rows},
        "seconds": {
            "load": round(load_seconds, 2),
            "compile": 0.0,
            "train": 0.0,
            "evaluate": round(time.perf_counter() - start, 2),
        },
    }
    path.mkdir(parents=True, exist_ok=True)
    bank.save(path / _TEST, classifier.description.digest)
    save_npz(path / CURVES, evaluation.arrays)
    write_json(path / RESULTS, results)
    checksums.record(path, _TEST, CURVES, RESULTS)
    report.write_report(path)
    return results, path


def load_rows(
    data: str,
    text_columns: tuple[str, ...],
    label_column: str,
    label_names: tuple[str, ...],
) -> Examples:
    """Returns the rows with labels numbered as in training."""
    if Path(data).is_file():
        fields = DataSettings(
            task="file",
            # The reader wants both; it is the same file, and only one is used.
            train_file=data,
            test_file=data,
            text_columns=text_columns,
            label_column=label_column,
        )
    else:
        fields = DataSettings(task=data, text_columns=text_columns)
    raw = load_task(fields)
    split = next(n for n in ("test", "validation", "all", "train") if n in raw.splits)
    examples = raw.splits[split]
    unknown = sorted(set(raw.label_names) - set(label_names))
    if unknown:
        raise SettingsError(
            f"{data} has labels that training lacks: {', '.join(unknown)}; known are"
            f" {', '.join(label_names)}"
        )
    numbers = np.array([label_names.index(name) for name in raw.label_names], np.int32)
    return Examples(
        examples.texts, examples.pairs, numbers[examples.labels], examples.row_ids
    )
