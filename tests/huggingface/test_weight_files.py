"""Which files of a folder hold weights; others are named, none is opened."""

import json
from pathlib import Path

import pytest

from sweet_jax.huggingface.weight_files import (
    compute_file_digest,
    find_shards,
    find_weight_files,
)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAME = "encoder.layer.1.output.dense.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    return tmp_path


def refuse(folder: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        find_weight_files(folder)
    line = str(error.value)
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 1500


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({NAME: 5}, "no readable weight_map"),
        ([], "no readable weight_map"),
        ({}, "no readable weight_map"),
        ({NAME: "../shard.safetensors"}, "expected the name of a file beside it"),
        ({NAME: "/etc/passwd"}, "expected the name of a file beside it"),
        ({NAME: ".."}, "expected the name of a file beside it"),
        ({NAME: "a\x1b[31m"}, "expected the name of a file beside it"),
        ({str(i): f"shard{i}" for i in range(1001)}, "1001 files, at most 1000"),
        ({NAME: "gone.safetensors"}, "lacks the shards gone.safetensors"),
    ],
    ids=str,
)
def test_a_shard_index_names_files_beside_it(folder, weight_map, message):
    (folder / WEIGHTS).rename(folder / "shard.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refuse(folder, message)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{}", "null", ""])
def test_a_damaged_shard_index_is_one_line(folder, text):
    (folder / WEIGHTS).rename(folder / "shard.safetensors")
    (folder / INDEX).write_text(text)
    refuse(folder, "no readable weight_map")


def test_a_single_file_wins_over_a_stale_index(folder):
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "gone"}}))
    assert find_weight_files(folder) == (folder / WEIGHTS,)
    with pytest.raises(ValueError, match="is missing"):
        find_shards(folder / "no.json")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_config.json", "it holds an adapter .*merge_and_unload"),
        ("onnx/model.onnx", "an ONNX program"),
        ("tf_model.h5", "TensorFlow weights"),
        ("openvino/openvino_model.xml", "an OpenVINO program"),
        ("pytorch_model.bin", "convert --from_torch"),
    ],
)
def test_what_lies_in_place_of_weights_is_named(folder, file, message):
    (folder / WEIGHTS).unlink()
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).touch()
    refuse(folder, message)


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["b.safetensors", "a.safetensors"]
    for name in names:
        (tmp_path / name).write_text(name)
    weight_map = {str(i): names[i % 2] for i in range(5)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    shards = find_weight_files(tmp_path)
    assert [file.name for file in shards] == sorted(names)
    digest = compute_file_digest(shards)
    assert digest != compute_file_digest(shards[::-1])
    (tmp_path / names[0]).write_text("changed")
    assert digest != compute_file_digest(shards)
