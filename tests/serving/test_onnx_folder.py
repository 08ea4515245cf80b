"""The ONNX folder: it has its own calibration, and is told from a model folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sweet_jax
from benchmarks.tiny_model import WORDS
from sweet_jax.onnx_graphs.segments import make_segment_models
from sweet_jax.serving.model_folder import write_checksums
from sweet_jax.serving.onnx_folder import save_onnx_folder

TEXTS = [" ".join(WORDS[i : i + 3]) for i in range(6)]


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 folder of the tiny model, with the calibration of that model."""
    path = tmp_path_factory.mktemp("onnx") / "int8"
    classifier = sweet_jax.load(tiny_model)
    segments = make_segment_models(classifier.model, classifier.params, "int8")
    save_onnx_folder(
        path,
        tiny_model,
        classifier.description,
        classifier.calibration.bank,
        [segment.SerializeToString() for segment in segments],
        "int8",
    )
    return path


def test_it_knows_its_backend_and_precision(folder, tiny_model):
    expected = sweet_jax.load(tiny_model).predict(TEXTS)
    for arguments in ({}, {"backend": "onnx"}, {"precision": "int8"}):
        answers = sweet_jax.load(folder, **arguments).predict(TEXTS)
        np.testing.assert_allclose(
            [p.probabilities for p in answers],
            [p.probabilities for p in expected],
            atol=0.05,
        )
    assert not (folder / "params.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"backend": "jax"},
            "has segments for ONNX Runtime: load it with backend=onnx",
        ),
        ({"precision": "float32"}, "is of precision int8: load it without precision"),
    ],
)
def test_another_backend_or_precision_is_refused(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        sweet_jax.load(folder, **{"backend": "onnx", **arguments})


def test_commands_that_need_parameters_refuse_it(folder, tmp_path):
    from sweet_jax.export.encoder import export_model

    with pytest.raises(ValueError, match="not the parameters of a model: give"):
        export_model(folder, tmp_path / "out")


def test_damage_is_found(folder, tmp_path):
    def copy(name: str) -> Path:
        return shutil.copytree(folder, tmp_path / name)

    altered = copy("altered") / "segment_1.onnx"
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"segment_1\.onnx was altered or damaged"):
        sweet_jax.load(altered.parent)
    missing = copy("missing")
    (missing / "segment_0.onnx").unlink()
    with pytest.raises(ValueError, match=r"lacks the file segment_0\.onnx"):
        sweet_jax.load(missing)
    unknown = copy("unknown")
    content = json.loads((unknown / "onnx.json").read_text())
    for change, message in (
        ({"precision": "int2"}, "precision"),
        ({"schema": 2}, "schema"),
    ):
        (unknown / "onnx.json").write_text(json.dumps(content | change))
        write_checksums(unknown)
        with pytest.raises(ValueError, match=message):
            sweet_jax.load(unknown)
