"""The ONNX folder: it has its own calibration, and is told from a model folder."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import transformers
from onnx_folders import COMPARISON, write_onnx_folder

import sweet_jax
from benchmarks.tiny_model import WORDS
from sweet_jax.arrays import LogitBank
from sweet_jax.data.tokenize import load_tokenizer
from sweet_jax.serving.model_folder import write_checksums
from sweet_jax.serving.onnx_folder import TokenRules

TEXTS = [" ".join(WORDS[i : i + 3]) for i in range(6)]


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 folder of the tiny model, with the calibration of that model."""
    path = tmp_path_factory.mktemp("onnx") / "int8"
    return write_onnx_folder(path, tiny_model, "int8")


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
    lacking = copy("lacking")
    (lacking / "trained.npz").unlink()
    with pytest.raises(ValueError, match=r"lacks the file trained\.npz"):
        sweet_jax.load(lacking)
    unknown = copy("unknown")
    content = json.loads((unknown / "onnx.json").read_text())
    for change, message in (
        ({"precision": "int2"}, "precision"),
        ({"schema": 2}, "schema"),
        ({"comparison": {**content["comparison"], "differing": -1}}, "differing"),
        ({"tokens": {**content["tokens"], "truncation_side": "up"}}, "truncation_side"),
    ):
        (unknown / "onnx.json").write_text(json.dumps(content | change))
        write_checksums(unknown)
        with pytest.raises(ValueError, match=message):
            sweet_jax.load(unknown)


def test_promises_are_against_the_trained_model(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    bank = LogitBank.load(copied / "calibration.npz")
    trained = dataclasses.replace(bank, logits=-bank.logits[:, -1:])
    digest = json.loads((copied / "model.json").read_text())["digest"]
    trained.save(copied / "trained.npz", digest)
    write_checksums(copied)
    calibration = sweet_jax.load(copied).calibration
    assert calibration.full is not None
    # Two classes: of negated logits the other is largest.
    assert (calibration.full == 1 - bank.logits[:, -1].argmax(axis=1)).all()
    for wrong, other in (
        (dataclasses.replace(trained, labels=1 - trained.labels), digest),
        (trained.select(np.arange(7)), digest),
        (dataclasses.replace(trained, logits=bank.logits), digest),
        (trained, "1" * 16),
    ):
        wrong.save(copied / "trained.npz", other)
        write_checksums(copied)
        with pytest.raises(ValueError, match=r"trained\.npz (has other|is of another)"):
            sweet_jax.load(copied)


def test_a_comparison_is_a_table_of_one_criterion():
    assert COMPARISON.format("int8").splitlines()[1:] == [
        "                             int8  trained  differ",
        "exit 0                     0.5000   0.5500",
        "exit 1                     0.7500   0.8000       1",
        "confidence, 1.5x           0.7000   0.7250       2",
        "confidence, 3x                      0.7250",
    ]


def alter(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Changes a segment, and makes the checksums fit."""
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    write_checksums(path.parent)


def set_note(key: str, value: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (note,) = (x for x in model.metadata_props if x.key == key)
        note.value = value

    return change


def add_state(model: onnx.ModelProto) -> None:
    """As in a segment that is not the last."""
    state = onnx.helper.make_tensor_value_info("state_after", 1, None)
    model.graph.output.append(state)
    model.graph.node.add(op_type="Identity", input=["state"], output=["state_after"])


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[-1].name = "scores"
    model.graph.node[-1].output[0] = "scores"


def widen_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_state, "segment 1 does not continue the segment before it"),
        (set_note("precision", "float32"), "of another precision or another model"),
        (set_note("per_token", "1e9"), "states '1e9' products"),
        (rename_output, "segment 1 does not continue the segment before it"),
        (widen_tensor, r"segment 1: it has a tensor of shape \[1125899906842624"),
        (lambda model: model.functions.add(), "segment 1: it has field 25 of a Model"),
    ],
)
def test_a_segment_of_another_model_is_refused(folder, tmp_path, change, message):
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    alter(copied / "segment_1.onnx", change)
    with pytest.raises(ValueError, match=message) as error:
        sweet_jax.load(copied)
    assert str(error.value).startswith(f"{copied} ")
    assert str(error.value).isprintable()


def test_outputs_of_other_shapes_than_declared_are_refused(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))

    def add_class(model: onnx.ModelProto) -> None:
        tensors = {x.name: x for x in model.graph.initializer}
        for part in ("kernel", "bias"):
            tensor = tensors[f"exits/exit_1/classifier/{part}"]
            values = onnx.numpy_helper.to_array(tensor)
            wide = np.concatenate([values, values[..., :1]], axis=-1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
        model.graph.output[0].type.tensor_type.ClearField("shape")

    alter(copied / "segment_1.onnx", add_class)
    with pytest.raises(ValueError, match=r"segment 1 gives logits of float32 \(6, 3\)"):
        sweet_jax.load(copied).predict(TEXTS)


def test_rules_of_tokens_are_those_of_the_tokenizer(tmp_path):
    words = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", "good"]
    mpnet = transformers.MPNetTokenizer(vocab={w: i for i, w in enumerate(words)})
    mpnet.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, 16)
    assert TokenRules.of(tokenizer) == TokenRules(1, "right", False)
