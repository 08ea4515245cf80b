"""Segments as ONNX graphs: in every family and method they compute what jax does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from onnx_folders import measure_tiny_ranges
from tiny_configs import TINY_CONFIGS
from tiny_models import make_padded_batch, write_model_folder

import sweet_jax
from sweet_jax.arrays import Batch, ExitOutput
from sweet_jax.engine.onnx_backend import OnnxSegments
from sweet_jax.huggingface.families import FAMILIES as ALL_FAMILIES
from sweet_jax.onnx_graphs.segments import FAMILIES, make_segment_models
from sweet_jax.standalone.onnx_session import run_session, start_session

REAL = slice(0, 5)  # The last row is padding, which may have any output.
RANGES = ((0.0, 1.0), (0.0, 1.0))
ONE_TABLE = {"separate_tables": False, "pooling": "cls", "lte_ranges": RANGES}
MULTI_MODEL = {"separate_tables": False, "member_exits": ((0,), (1,))}
RELEASED = {"separate_tables": False, "shared_pooler": True}


def run_jax(classifier: sweet_jax.AdaptiveClassifier, batch: Batch) -> list[np.ndarray]:
    """Returns the answers of all exits, of the whole model in one pass."""
    model = classifier.model
    apply: Any = jax.jit(lambda params: model.apply({"params": params}, batch))
    outputs: tuple[ExitOutput, ...] = apply(classifier.params)
    return [
        np.asarray(x.logits_BC)[REAL]
        if x.lte_B is None
        else np.concatenate([x.logits_BC, x.lte_B[:, None]], axis=1)[REAL]
        for x in outputs
    ]


def run_onnx(
    classifier: sweet_jax.AdaptiveClassifier, batch: Batch, precision: str
) -> list[np.ndarray]:
    """Returns the same of ONNX Runtime, segment after segment."""
    ranges = measure_tiny_ranges(classifier) if precision == "int8" else None
    models = make_segment_models(classifier.model, classifier.params, ranges)
    segments = OnnxSegments([model.SerializeToString() for model in models], 2)
    outputs = [segments.start(batch)]
    for i in range(1, segments.num_segments):
        outputs.append(segments.run(i, outputs[-1].rows, 0))
    return [np.asarray(output.answers)[REAL] for output in outputs]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {}),
        ("deberta-v2", ONE_TABLE),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *((family, {}) for family in TINY_CONFIGS if family != "bert"),
                *(("bert", x) for x in (ONE_TABLE, MULTI_MODEL, RELEASED)),
                ("mpnet", ONE_TABLE),
                ("modernbert", MULTI_MODEL),
            )
        ),
    ],
)
def test_segments_compute_what_jax_does(
    tmp_path: Path,
    make_tiny_encoder: Callable[[str], Path],
    family: str,
    changes: dict[str, Any],
):
    write_model_folder(tmp_path / "m", make_tiny_encoder(family), **changes)
    classifier, batch = sweet_jax.load(tmp_path / "m"), make_padded_batch(0)
    exact = run_jax(classifier, batch)
    same = run_onnx(classifier, batch, "float32")
    rounded = run_onnx(classifier, batch, "int8")
    for ours, theirs, close in zip(exact, same, rounded, strict=True):
        assert np.abs(ours).max() > 0.1
        np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=1e-5)
        # Of random weights, which are harder to round than trained ones.
        assert 0 < np.abs(close - ours).mean() < 0.2 * np.abs(ours).mean()


def test_every_family_has_a_graph():
    assert {x.encoder_class for x in ALL_FAMILIES.values()} == FAMILIES.keys()


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_padding_changes_nothing_however_large_scores_are(
    tmp_path: Path, make_tiny_encoder: Callable[[str], Path], family: str
):
    write_model_folder(tmp_path / "m", make_tiny_encoder(family))
    classifier = sweet_jax.load(tmp_path / "m")
    # So that the bias of padding is small beside the scores.
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: x * 1e4 if "query" in jax.tree_util.keystr(path) else x,
        classifier.params,
    )
    (model, *_) = make_segment_models(classifier.model, params)
    session = start_session(model.SerializeToString())
    batch = {
        name: np.asarray(getattr(make_padded_batch(0), name))[:1]
        for name in ("token_ids", "type_ids", "mask")
    }
    length = int(batch["mask"].sum())
    short = {name: x[:, :length] for name, x in batch.items()}
    long = {name: np.pad(x, ((0, 0), (0, 9))) for name, x in short.items()}
    for ids in range(5):
        long["token_ids"][:, length:] = ids
        np.testing.assert_allclose(
            run_session(session, long)["logits"],
            run_session(session, short)["logits"],
            atol=1e-5,
        )
