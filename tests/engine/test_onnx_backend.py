"""The cascade on ONNX Runtime: the same answers as jax, and exits of its own bank."""

from pathlib import Path

import numpy as np
import pytest
from onnx_folders import measure_tiny_ranges
from tiny_models import write_model_folder

import sweet_jax
from benchmarks.tiny_model import WORDS
from sweet_jax.arrays import Batch
from sweet_jax.engine.onnx_backend import OnnxSegments
from sweet_jax.onnx_graphs.segments import make_segment_models
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.standalone.onnx_session import count_cores


@pytest.fixture(scope="module")
def jax_classifier(tiny_model: Path) -> AdaptiveClassifier:
    return sweet_jax.load(tiny_model, batch_size=4)


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> AdaptiveClassifier:
    return sweet_jax.load(tiny_model, batch_size=4, backend="onnx")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Texts of many lengths."""
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(30)]


@pytest.mark.parametrize("criterion", ["confidence", "margin"])
def test_answers_are_those_of_jax(classifier, jax_classifier, texts, criterion):
    threshold = {"confidence": 0.8, "margin": 0.6}[criterion]
    ours = classifier.predict(texts, threshold, criterion)
    theirs = jax_classifier.predict(texts, threshold, criterion)
    assert len({p.exit for p in theirs}) == 2
    assert [(p.label, p.exit) for p in ours] == [(p.label, p.exit) for p in theirs]
    np.testing.assert_allclose(
        [p.probabilities for p in ours],
        [p.probabilities for p in theirs],
        atol=1e-5,
    )


def test_exits_are_those_of_the_cascade_on_its_own_bank(classifier, texts):
    examples = classifier.make_examples(texts)
    scores_NE = classifier.score(examples, "confidence")
    # Between two scores, so that rounding decides nothing.
    ordered = np.sort(scores_NE[:, 0])
    threshold = float(ordered[14] + ordered[15]) / 2
    exits = [p.exit for p in classifier.predict(texts, threshold)]
    assert exits == (scores_NE[:, 0] < threshold).astype(int).tolist()
    stats = classifier.stats
    assert stats["programs"] == 2
    assert stats["row_filling"] == 1
    assert stats["flops"] > 0


def test_rows_that_are_taken_or_put_continue_as_before(classifier, rng):
    segments = classifier.engine.segments
    assert isinstance(segments, OnnxSegments)
    ids = rng.integers(1, 9, (4, 5)).astype(np.int32)
    zeros = np.zeros(4, np.int32)
    batch = Batch(ids, 0 * ids, 0 * ids + 1, zeros, zeros.astype(np.float32), zeros)
    rows = segments.start(batch).rows
    expected = segments.run(1, rows, 5).answers
    taken = segments.take(rows, np.array([2, 0]))
    np.testing.assert_allclose(
        segments.run(1, taken, 5).answers, expected[[2, 0]], atol=1e-5
    )
    # A queue of three: row 3 gets the first slot, row 1 the last; 0 and 2 none.
    queue = segments.take(rows, np.array([2, 2, 2]))
    queue = segments.put(queue, rows, np.array([3, 2, 3, 0]))
    np.testing.assert_allclose(
        segments.run(1, queue, 5).answers, expected[[3, 2, 1]], atol=1e-5
    )


def test_flops_are_those_of_the_products(classifier, jax_classifier):
    ours, theirs = classifier.engine.segments, jax_classifier.engine.segments
    theirs.compile_lengths(4, [8])
    for i in range(2):
        # XLA also counts norms, softmax and other parts.
        share = ours.count_flops(i, 4, 8) / theirs.count_flops(i, 4, 8)
        assert 0.5 < share < 1


def test_threads_are_those_asked_for(tiny_model, texts):
    for threads in (None, 1, 2):
        one = sweet_jax.load(tiny_model, backend="onnx", threads=threads)
        segments = one.engine.segments
        assert isinstance(segments, OnnxSegments)
        options = segments._sessions[0].get_session_options()
        assert options.intra_op_num_threads == (threads or count_cores())
    assert len(list(one.predict(texts))) == len(texts)


def test_segments_are_timed(classifier):
    costs = classifier.measure_costs()
    assert (costs.seconds_per_row > 0).all()
    assert classifier.predict(["a film"], milliseconds=1e3)


def test_bytes_that_are_no_model_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^segment 0: it (has|is damaged)"):
        OnnxSegments([b"nonsense"], 2)


def test_precision_must_be_that_of_the_calibration(tiny_model, tiny_encoder, tmp_path):
    match = (
        r"was calibrated in float32, not in int8: write a folder that is with sweet-jax"
        r" export --onnx --int8 --model=\S+ --out=FOLDER"
    )
    with pytest.raises(ValueError, match=match):
        sweet_jax.load(tiny_model, backend="onnx", precision="int8")
    write_model_folder(tmp_path / "m", tiny_encoder, dtype="bfloat16")
    with pytest.raises(ValueError, match="was calibrated in bfloat16, not in float32"):
        sweet_jax.load(tmp_path / "m", backend="onnx")


def test_int8_is_refused_where_its_products_overflow(
    jax_classifier, tmp_path, monkeypatch
):
    ranges = measure_tiny_ranges(jax_classifier)
    models = make_segment_models(jax_classifier.model, jax_classifier.params, ranges)
    segments = [model.SerializeToString() for model in models]
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for flags, refused in (("avx2 fma", True), ("avx2 avx_vnni", False)):
        info = tmp_path / "cpuinfo"
        info.write_text(f"model name\t: x\nflags\t\t: fpu {flags}\n")
        monkeypatch.setattr("sweet_jax.standalone.onnx_session.CPU_INFO", info)
        if not refused:
            OnnxSegments(segments, 2)
            continue
        with pytest.raises(ValueError, match="neither VNNI nor AMX, so that 8-bit"):
            OnnxSegments(segments, 2)
