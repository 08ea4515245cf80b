"""Exports a run's model as an ONNX folder, calibrated in its own precision.

Rounding to 8 bits moves scores. So temperatures, learning-to-exit ranges and thresholds
are fitted again, as the run fitted them, but on the outputs of the ONNX segments for
the run's calibration rows; and they are measured on the run's test rows. A model folder
has no texts, so these rows are read from the run's data.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.arrays import LogitBank
from sweet_jax.data.examples import Examples
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import Splits, make_splits
from sweet_jax.devices import configure_jax
from sweet_jax.engine.engine import Engine, check_packages
from sweet_jax.engine.shapes import Shapes
from sweet_jax.evaluation.banks import CascadeSpec, Evaluation, evaluate_banks
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import FULL
from sweet_jax.exits.temperatures import RELEASED_RANGE, TEMPERATURE_RANGE
from sweet_jax.runs.workdir import MODEL, REMEDY, WorkdirError, read_settings
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.serving.load import load
from sweet_jax.serving.onnx_folder import (
    CascadeAccuracy,
    Comparison,
    ExitAccuracy,
    OnnxPart,
    TokenRules,
    save_onnx_folder,
)
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.thresholds.sequences import find_exits

logger = logging.getLogger(__name__)


def export_onnx(model: Path, out: Path, precision: str) -> str:
    """Writes an ONNX folder, completely or not at all.

    Args:
        model: the model folder of a finished run, in its work directory.
        out: the folder to write.
        precision: `float32` or `int8`.

    Returns:
        Lines that describe the written folder: its size, and how it compares with the
        trained model.

    Raises:
        ValueError: `out` exists, a package is missing, `model` is not the model folder
            of a run, the run's rows cannot be read or have changed, or the family
            cannot be written as ONNX.
    """
    check_packages("onnx", "onnxruntime")
    # Imported here: the packages are an extra.
    from sweet_jax.engine.onnx_backend import OnnxSegments
    from sweet_jax.onnx_graphs.ranges import measure_ranges
    from sweet_jax.onnx_graphs.segments import make_segment_models

    if out.exists():
        raise ValueError(f"{out} already exists: name another folder with --out")
    classifier = load(model, backend="jax")  # An ONNX folder has no parameters.
    settings, splits = _read_rows(model, classifier)
    d = classifier.description
    configure_jax(d.matmul_precision)
    used = classifier.engine.shapes
    shapes = Shapes(used.batch_size, used.lengths, used.pad_id, are_fixed=False)
    ranges = None
    if precision == "int8":
        # Part 1 tests promises, so nothing is fitted on it.
        fitted = splits.calibration.select(np.flatnonzero(splits.part != 1))
        batches = shapes.make_batches(classifier.tokenize(fitted))
        ranges = measure_ranges(
            classifier.model, classifier.params, (batch for batch, _ in batches)
        )
    segments = [
        segment.SerializeToString()
        for segment in make_segment_models(classifier.model, classifier.params, ranges)
    ]
    engine = Engine(OnnxSegments(segments, len(d.label_names)), shapes)

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

    def evaluate(test: LogitBank, calibration: Calibration) -> Evaluation:
        return evaluate_banks(
            CascadeSpec.from_settings(settings, len(d.member_exits) > 1),
            test=test,
            calibration=calibration,
            train_label_counts_C=np.bincount(
                splits.train.labels, minlength=len(d.label_names)
            ),
        )

    evaluation = evaluate(collect(splits.test), calibration)
    trained = evaluate(
        _read_test_bank(model.parent, splits.test, d.digest), classifier.calibration
    )
    comparison = _compare(
        (evaluation, calibration), (trained, classifier.calibration), len(splits.test)
    )
    save_onnx_folder(
        out,
        model,
        dataclasses.replace(
            d, thresholds=evaluation.at_speedup, **calibration.describe()
        ),
        calibration.bank,
        classifier.calibration.bank,
        segments,
        OnnxPart(precision, TokenRules.of(classifier.tokenizer), comparison),
    )
    size = sum(file.stat().st_size for file in out.rglob("*"))
    return (
        f"{out}: {len(segments)} segments in {precision}, {size / 1e6:.1f} MB\n"
        + comparison.format(precision)
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
    bank = classifier.calibration.bank
    _check_rows(model.parent, splits.calibration, bank, splits.part)
    return settings, splits


def _check_rows(
    workdir: Path, rows: Examples, bank: LogitBank, part: np.ndarray | None = None
) -> None:
    """Raises WorkdirError if a bank of the run has other rows than its data."""
    same = np.array_equal(rows.row_ids, bank.row_ids)
    same &= np.array_equal(rows.labels, bank.labels)
    if part is not None:
        same &= np.array_equal(part, bank.part)
    if not same:
        raise WorkdirError(
            f"{workdir} was calibrated or tested on other rows than its data have now:"
            " put the data back, or train again"
        )


def _read_test_bank(workdir: Path, test: Examples, digest: str) -> LogitBank:
    """Returns the trained model's outputs on the test rows.

    Raises:
        FileError: the file is missing or damaged, or of another training.
        WorkdirError: the test rows have changed.
    """
    bank = LogitBank.load(workdir / "logits_test.npz", REMEDY, digest)
    _check_rows(workdir, test, bank)
    return bank


def _compare(
    now: tuple[Evaluation, Calibration],
    then: tuple[Evaluation, Calibration],
    test_rows: int,
) -> Comparison:
    """Returns the segments beside the trained model.

    Args:
        now: measurements and calibration of the segments.
        then: those of the trained model.
        test_rows: number of test rows.
    """
    exits = tuple(
        ExitAccuracy(row["layer"], row["accuracy"], trained["accuracy"])
        for row, trained in zip(now[0].exits, then[0].exits, strict=True)
    )
    cascades = []
    for criterion, rows in now[0].at_speedup.items():
        for row, trained in zip(rows, then[0].at_speedup[criterion], strict=True):
            labels = [
                _find_labels(calibration, criterion, chosen)
                for (_, calibration), chosen in ((now, row), (then, trained))
                if chosen["accuracy"] is not None
            ]
            cascades.append(
                CascadeAccuracy(
                    criterion,
                    row["target"],
                    row["accuracy"],
                    trained["accuracy"],
                    int((labels[0] != labels[1]).sum()) if len(labels) == 2 else None,
                )
            )
    full = [
        calibration.bank.logits[:, -1].argmax(axis=1) for _, calibration in (now, then)
    ]
    differing = int((full[0] != full[1]).sum())
    return Comparison(test_rows, len(full[0]), exits, differing, tuple(cascades))


def _find_labels(
    calibration: Calibration, criterion: str, chosen: dict[str, Any]
) -> np.ndarray:
    """Returns the class that a cascade gives each calibration row."""
    rows = calibration.apply(calibration.bank)
    threshold = FULL if chosen["threshold"] is None else chosen["threshold"]
    path_TK = np.array([[threshold]], np.float32)
    (exits_N,) = find_exits(rows.score(criterion), path_TK)
    return rows.predictions[np.arange(len(exits_N)), exits_N]
