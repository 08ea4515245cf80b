"""The loader answers as the classifier does, and refuses what it cannot answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported_folders import (
    THREE_EXITS,
    check_loaded,
    check_refused,
    make_examples,
    pad,
    read_manifest,
    sign,
)
from jax import export
from tiny_models import write_model_folder

from sweet_jax.arrays import save_npz
from sweet_jax.export.folder import export_folder
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.serving.load import load
from sweet_jax.standalone.loader import FULL, ExportedClassifier


@pytest.fixture(scope="module")
def model(tiny_encoder, tmp_path_factory) -> Path:
    """A model folder of three exits."""
    folder = tmp_path_factory.mktemp("model") / "model"
    write_model_folder(folder, tiny_encoder, **THREE_EXITS)
    return folder


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    export_folder(model, out)
    return out


@pytest.fixture(scope="module")
def loaded(exported) -> ExportedClassifier:
    return ExportedClassifier(exported)


@pytest.fixture(scope="module")
def classifier(model) -> AdaptiveClassifier:
    return load(model)


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy, to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "out"))


IDS = np.ones((2, 5), np.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"ids": np.ones((2, 17), int)},
            r"\(2, 17\): expected \(1.., 1 to 16 tokens\)",
        ),
        ({"ids": np.ones((0, 5), int)}, r"token ids \(0, 5\)"),
        ({"ids": np.ones((2, 0), int)}, r"token ids \(2, 0\)"),
        ({"ids": [1, 2, 3]}, r"token ids \(3,\)"),
        ({"ids": IDS * 0.5}, r"token_ids: expected integers 0 to 63, \(2, 5\)"),
        ({"ids": IDS * 64}, r"token_ids: expected integers 0 to 63"),
        ({"ids": -IDS}, r"token_ids: expected integers 0 to 63"),
        ({"mask": IDS[:1]}, r"mask: expected integers 0 to 1, \(2, 5\)"),
        ({"mask": IDS == 1}, r"mask: expected integers"),
        ({"mask": 2 * IDS}, r"mask: expected integers 0 to 1"),
        ({"mask": [[0, 1, 1, 1, 1]] * 2}, r"mask: expected 1 at each row's tokens"),
        ({"mask": [[0] * 5, [1] * 5]}, r"mask: expected 1 at each row's tokens"),
        ({"mask": [[1, 0, 1, 0, 0]] * 2}, r"mask: expected 1 at each row's tokens"),
        ({"types": 2 * IDS}, r"type_ids: expected integers 0 to 1"),
        ({"threshold": 0.3}, r"threshold=0.3 is not in 0.333.* to 1.0, or inf"),
        ({"threshold": 1.1}, r"threshold=1.1"),
        ({"threshold": float("nan")}, r"threshold=nan"),
    ],
)
def test_what_the_loader_refuses(loaded, arguments, message):
    with pytest.raises(ValueError, match=message):
        loaded(**({"ids": IDS} | arguments))


def test_an_altered_an_incomplete_and_a_newer_folder_are_refused(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(json.dumps(json.loads(text) | {"schema": 2}))
    with pytest.raises(ValueError, match="out is newer than this loader"):
        ExportedClassifier(folder)
    (folder / "manifest.json").write_text(text)
    program = folder / "segment_1.jaxexp"
    program.write_bytes(program.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"segment_1\.jaxexp was altered or damaged"):
        ExportedClassifier(folder)
    program.unlink()
    with pytest.raises(ValueError, match=r"lacks the file segment_1\.jaxexp: copy"):
        ExportedClassifier(folder)


def test_the_loader_gives_the_classifiers_answers(classifier, loaded):
    check_loaded(classifier, loaded)


def test_a_confidence_equal_to_the_threshold_answers(classifier, loaded):
    ids, mask = pad(classifier.tokenize(make_examples()))
    ids, mask = ids[:1], mask[:1]
    confidence = loaded(ids, mask, threshold=1 / 3).probabilities.max()
    assert confidence < 1
    assert loaded(ids, mask, threshold=confidence.item()).exits == 0
    above = np.nextafter(confidence, np.float32(1))
    assert loaded(ids, mask, threshold=above.item()).exits > 0


def test_a_program_is_the_one_described(folder):
    shutil.copyfile(folder / "segment_1.jaxexp", folder / "segment_0.jaxexp")
    sign(folder)
    check_refused(folder, "is not the program that the manifest describes")
    for content in (b"", b"\0" * 100, b"PK" * 100):
        (folder / "segment_0.jaxexp").write_bytes(content)
        sign(folder)
        check_refused(folder, r"segment_0\.jaxexp is not a program that jax .* reads")


def test_a_program_that_calls_out_is_refused(folder):
    """What it would call may do anything."""
    manifest = read_manifest(folder)
    program = manifest["programs"][2]
    batch, length = export.symbolic_shape("batch, length")
    symbols = {"batch": batch, "length": length}

    def make(shape: list[Any], dtype: str) -> jax.ShapeDtypeStruct:
        sizes = tuple(symbols.get(x, x) for x in shape)
        return jax.ShapeDtypeStruct(sizes, jnp.dtype(dtype))

    def run(weights: Any, state: Any) -> dict[str, jax.Array]:
        # A routine of LAPACK, by its name; callbacks of Python are called so, too.
        one = jnp.linalg.cholesky(jnp.eye(2))[0, 0]
        return {"logits": jnp.zeros((state["mask"].shape[0], 3)) * one}

    shapes = manifest["weights"]
    weights = {name: make(shapes[name], "float32") for name in program["weights"]}
    state = {x["name"]: make(x["shape"], x["dtype"]) for x in program["inputs"]}
    jitted = jax.jit(run, keep_unused=True)
    program = export.export(jitted, platforms=["cpu"])(weights, state)
    assert "custom_call @lapack" in program.mlir_module()
    (folder / "segment_2.jaxexp").write_bytes(bytes(program.serialize()))
    sign(folder)
    check_refused(folder, r"segment_2\.jaxexp calls external code")


def test_numbers_that_overflow_give_an_error_not_nan(folder):
    path = folder / "weights.npz"
    with np.load(path) as file:
        arrays = dict(file)
    name = "exits/exit_1/classifier/kernel"
    save_npz(path, arrays | {name: np.full_like(arrays[name], 3e38)})
    sign(folder)
    classifier = ExportedClassifier(folder)
    with pytest.raises(ValueError, match="row 0: exit 1 gives logits that are not"):
        classifier(np.full((1, 4), 5))


@pytest.mark.slow
def test_a_folder_runs_with_its_own_loader(folder):
    """As docs/export.md shows; twice, since Python leaves a folder of its own there."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from loader import"
        " ExportedClassifier; print(ExportedClassifier(sys.argv[1])([[5, 6]]).labels)"
    )
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            cwd="/",
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() in ("['bad']", "['fair']", "['good']")
    assert (folder / "__pycache__").is_dir()


def test_rows_do_not_depend_on_those_beside_them(classifier, loaded):
    """Nor on padding, of rows or of tokens."""
    ids, mask = pad(classifier.tokenize(make_examples()))
    together = loaded(ids, mask, threshold=0.6)
    assert len(set(together.exits)) > 1
    for i, length in enumerate(mask.sum(axis=1)):
        alone = loaded(ids[i : i + 1, :length], threshold=0.6)
        assert alone.exits[0] == together.exits[i]
        np.testing.assert_allclose(alone.logits[0], together.logits[i], atol=1e-5)


def test_a_program_meets_few_shapes(classifier, loaded, monkeypatch):
    """Row counts are powers of two, whatever number of rows is undecided."""
    met = set()

    def watch(call: Any) -> Any:
        def run(weights: Any, state: Any) -> Any:
            met.add(state["mask"].shape)
            return call(weights, state)

        return run

    programs = [(i, weights, watch(call)) for i, weights, call in loaded._programs]
    monkeypatch.setattr(loaded, "_programs", programs)
    ids, mask = pad(classifier.tokenize(make_examples()))
    for count in range(1, len(ids) + 1):
        for threshold in (0.6, FULL):
            answers = loaded(ids[:count], mask[:count], threshold=threshold)
            assert len(answers.labels) == count
    assert met == {(rows, 16) for rows in (1, 2, 4, 8)}
