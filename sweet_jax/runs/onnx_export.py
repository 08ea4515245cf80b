"""Exports a run's model as an ONNX folder, calibrated in its own precision.

Rounding to 8 bits moves scores. So temperatures, learning-to-exit ranges and thresholds
are fitted again, as the run fitted them, but on the outputs of the ONNX segments for
the run's calibration rows; and they are measured on the run's test rows. A model folder
has no texts, so these rows are read from the run's data.
"""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from sweet_jax.arrays import LogitBank
from sweet_jax.data.examples import Examples
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import Splits, make_splits
from sweet_jax.devices import configure_jax
from sweet_jax.engine.engine import Engine, check_packages
from sweet_jax.engine.shapes import Shapes
from sweet_jax.evaluation.banks import CascadeSpec, evaluate_banks
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.temperatures import RELEASED_RANGE, TEMPERATURE_RANGE
from sweet_jax.runs.workdir import MODEL, WorkdirError, read_settings
from sweet_jax.serving.classifier import AdaptiveClassifier, load
from sweet_jax.serving.onnx_folder import save_onnx_folder
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict

logger = logging.getLogger(__name__)


def export_onnx(model: Path, out: Path, precision: str) -> str:
    """Writes an ONNX folder, completely or not at all.

    Args:
        model: the model folder of a finished run, in its work directory.
        out: the folder to write.
        precision: `float32` or `int8`.

    Returns:
        One line that describes the written folder: its size, and how often its
        predictions at full depth differ from those of the model folder on test rows.

    Raises:
        ValueError: `out` exists, a package is missing, `model` is not the model folder
            of a run, the run's rows cannot be read or have changed, or the family
            cannot be written as ONNX.
    """
    check_packages("onnx", "onnxruntime")
    # Imported here: the packages are an extra.
    from sweet_jax.engine.onnx_backend import OnnxSegments
    from sweet_jax.onnx_graphs.segments import make_segment_models

    if out.exists():
        raise ValueError(f"{out} already exists: name another folder with --out")
    classifier = load(model)
    settings, splits = _read_rows(model, classifier)
    d = classifier.description
    configure_jax(d.matmul_precision)
    segments = [
        segment.SerializeToString()
        for segment in make_segment_models(
            classifier.model, classifier.params, precision
        )
    ]
    shapes = classifier.engine.shapes
    backend = OnnxSegments(segments, len(d.label_names))
    engine = Engine(
        backend, Shapes(shapes.batch_size, shapes.lengths, shapes.pad_id, False)
    )

    def collect(rows: Examples, part: np.ndarray | None = None) -> LogitBank:
        return engine.collect(classifier.tokenize(rows), part)

    num_rows = len(splits.calibration) + len(splits.test)
    logger.info("running %d rows in %s", num_rows, precision)
    bounds = RELEASED_RANGE if settings.faithful_release else TEMPERATURE_RANGE
    calibration = Calibration.fit(
        collect(splits.calibration, splits.part),
        classifier.calibration.costs_E,
        d.metric,
        bounds=bounds,
    )
    test = collect(splits.test)
    evaluation = evaluate_banks(
        CascadeSpec.from_settings(settings, len(d.member_exits) > 1),
        test=test,
        calibration=calibration,
        train_label_counts_C=np.bincount(
            splits.train.labels, minlength=len(d.label_names)
        ),
    )
    description = dataclasses.replace(
        d, thresholds=evaluation.at_speedup, **calibration.describe()
    )
    save_onnx_folder(out, model, description, calibration.bank, segments, precision)
    size = sum(file.stat().st_size for file in out.rglob("*"))
    return (
        f"{out}: {len(segments)} segments in {precision}, {size / 1e6:.1f} MB;"
        f" {_compare(classifier.calibration.bank, calibration.bank)}; {d.metric} on"
        f" {len(splits.test)} test rows {evaluation.full:.4f}"
    )


def _read_rows(model: Path, classifier: AdaptiveClassifier) -> tuple[Settings, Splits]:
    """Returns the settings and the rows of the run that a model folder is in.

    Raises:
        WorkdirError: the folder is in no work directory, or the rows have changed.
    """
    if model.name != MODEL:
        raise WorkdirError(
            f"{model} is not in the work directory of its run, whose rows calibrate the"
            f" segments: give WORKDIR/{MODEL}"
        )
    settings = from_config_dict(read_settings(model.parent))
    splits = make_splits(load_task(settings.data), settings)
    bank, rows = classifier.calibration.bank, splits.calibration
    same = all(
        np.array_equal(now, then)
        for now, then in (
            (rows.row_ids, bank.row_ids),
            (rows.labels, bank.labels),
            (splits.part, bank.part),
        )
    )
    if not same:
        raise WorkdirError(
            f"{model.parent} was calibrated on other rows than its data have now: put"
            " the data back, or train again"
        )
    return settings, splits


def _compare(before: LogitBank, after: LogitBank) -> str:
    """Says on how many rows the last exit predicts another class than before."""
    was, now = (bank.logits[:, -1].argmax(axis=1) for bank in (before, after))
    return f"{(was != now).sum()} of {len(was)} calibration rows changed their label"
