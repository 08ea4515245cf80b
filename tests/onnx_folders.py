"""ONNX folders of models without a run, with the calibration of the model folder."""

import dataclasses
from pathlib import Path
from typing import Any

from tiny_models import make_padded_batch

import sweet_jax
from sweet_jax.onnx_graphs.graph import Ranges
from sweet_jax.onnx_graphs.ranges import measure_ranges
from sweet_jax.onnx_graphs.segments import make_segment_models
from sweet_jax.serving.onnx_folder import (
    CascadeAccuracy,
    Comparison,
    ExitAccuracy,
    OnnxPart,
    TokenRules,
    save_onnx_folder,
)

COMPARISON = Comparison(
    test_rows=40,
    calibration_rows=8,
    exits=(ExitAccuracy(0, 0.5, 0.55), ExitAccuracy(1, 0.75, 0.8)),
    differing=1,
    cascades=(
        CascadeAccuracy("confidence", 1.5, 0.7, 0.725, 2),
        CascadeAccuracy("confidence", 3.0, None, 0.725, None),
        CascadeAccuracy("margin", 1.5, 0.6, 0.625, 3),
    ),
)


def measure_tiny_ranges(classifier: sweet_jax.AdaptiveClassifier) -> list[Ranges]:
    """Returns the ranges of states on a few rows of random tokens."""
    batches = [make_padded_batch(seed) for seed in range(3)]
    # The smallest vocabulary of the tests' encoders.
    batches = [x._replace(token_ids=x.token_ids % 20) for x in batches]
    return measure_ranges(classifier.model, classifier.params, batches)


def write_onnx_folder(
    path: Path, model: Path, precision: str = "float32", **changes: Any
) -> Path:
    """Writes the folder and returns its path.

    Args:
        path: to write.
        model: a model folder.
        precision: of the segments.
        **changes: fields of the description.
    """
    classifier = sweet_jax.load(model)
    ranges = measure_tiny_ranges(classifier) if precision == "int8" else None
    segments = make_segment_models(classifier.model, classifier.params, ranges)
    save_onnx_folder(
        path,
        model,
        dataclasses.replace(classifier.description, **changes),
        classifier.calibration.bank,
        classifier.calibration.bank,
        [segment.SerializeToString() for segment in segments],
        OnnxPart(precision, TokenRules.of(classifier.tokenizer), COMPARISON),
    )
    return path
