"""Safetensors in and out: strict names and shapes, damage, pickles, round trips."""

import json
import os
import pickle
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from command_line import run_command
from safetensors.numpy import load_file, save_file

from sweet_jax.huggingface.config import load_config, read_config
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.safetensors import export_encoder, load_encoder
from sweet_jax.trees import flatten_paths

GOLDEN = Path(__file__).parents[1] / "golden" / "bert.npz"
QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return {
            name.removeprefix("tensor/"): arrays[name]
            for name in arrays.files
            if name.startswith("tensor/")
        }


@pytest.fixture(scope="module")
def config_text() -> str:
    with np.load(GOLDEN) as arrays:
        return str(arrays["config"])


@pytest.fixture
def write(tmp_path, config_text):
    """Returns tensors -> a folder with them."""

    def write_folder(tensors: dict[str, np.ndarray]) -> Path:
        folder = tmp_path / "source"
        folder.mkdir()
        (folder / "config.json").write_text(config_text)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return write_folder


def load(folder: Path, num_layers: int = 2):
    return load_encoder(folder, load_config(folder), num_layers)


def assert_same_tree(got, want) -> None:
    got, want = flatten_paths(got), flatten_paths(want)
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(got[path], want[path], err_msg=path)


def test_load_export_load_is_the_identity(write, tensors, tmp_path):
    source, out = write(tensors), tmp_path / "out"
    first = load(source)
    attributes = read_config(source)
    assert first.pooler is not None
    export_encoder(first.encoder, first.pooler, load_config(source), attributes, out)
    second = load(out)
    assert_same_tree(second.encoder, first.encoder)
    assert_same_tree(second.pooler, first.pooler)
    # And the files themselves: the same names, the same numbers.
    exported = load_file(out / "model.safetensors")
    assert exported.keys() == tensors.keys()
    for name in tensors:
        np.testing.assert_array_equal(exported[name], tensors[name], err_msg=name)
    assert read_config(out) == attributes


def test_every_row_translates_both_ways():
    name_map = NAME_MAPS["bert"]
    for rule in name_map.rules:
        theirs, ours = rule.theirs.format(layer=11), rule.ours.format(layer=11)
        assert name_map.to_ours(theirs) == (ours, rule.transform)
        assert name_map.to_theirs(ours) == (theirs, rule.transform)
    assert name_map.to_ours("encoder.layer.x.output.dense.bias") is None
    assert name_map.to_ours("encoderXlayer.0.output.dense.bias") is None


def test_a_truncated_encoder_leaves_deeper_layers_and_exports_its_depth(
    write, tensors, tmp_path
):
    source, out = write(tensors), tmp_path / "out"
    loaded = load(source, num_layers=1)
    assert [name for name in loaded.encoder if "layer" in name] == ["layer_0"]
    config = load_config(source)
    export_encoder(loaded.encoder, None, config, read_config(source), out)
    assert load_config(out).num_layers == 1
    again = load(out, num_layers=1)
    assert again.pooler is None
    assert_same_tree(again.encoder, loaded.encoder)


def test_missing_and_extra_tensors_are_both_listed(write, tensors):
    tensors = dict(tensors)
    del tensors[QUERY], tensors["embeddings.LayerNorm.bias"]
    tensors["encoder.layer.0.adapter.weight"] = np.ones(3, np.float32)
    tensors["encoder.layer.2.output.dense.bias"] = np.ones(32, np.float32)
    with pytest.raises(ValueError, match="missing tensors") as error:
        load(write(tensors))
    text = str(error.value)
    missing, extra = text.split("|")
    assert QUERY in missing
    assert "embeddings.LayerNorm.bias" in missing
    assert "encoder.layer.0.adapter.weight" in extra
    # A layer that the config does not have is no "deeper layer".
    assert "encoder.layer.2.output.dense.bias" in extra
    assert "\n" not in text


@pytest.mark.parametrize("rule", NAME_MAPS["bert"].rules, ids=lambda r: r.ours)
def test_no_tensor_can_be_left_out(write, tensors, rule):
    name = rule.theirs.format(layer=0)
    folder = write({key: tensors[key] for key in tensors if key != name})
    with pytest.raises(ValueError, match=f"missing tensors: {re.escape(name)}$"):
        load(folder)


def test_half_a_pooler_is_missing_and_none_is_fine(write, tensors):
    bare = {n: t for n, t in tensors.items() if not n.startswith("pooler")}
    folder = write(bare)
    assert load(folder).pooler is None
    bare["pooler.dense.bias"] = tensors["pooler.dense.bias"]
    save_file(bare, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing tensors: pooler\.dense\.weight$"):
        load(folder)


def test_old_names_prefixes_and_heads_are_known(write, tensors):
    def make_old(name: str) -> str:
        if "LayerNorm" in name:
            name = name.replace("weight", "gamma").replace("bias", "beta")
        return f"bert.{name}"

    old = {make_old(name): tensor for name, tensor in tensors.items()}
    heads = {
        "bert.embeddings.position_ids": np.arange(40)[None],
        "cls.predictions.bias": np.zeros(60, np.float32),
        "cls.seq_relationship.weight": np.zeros((2, 32), np.float32),
        "classifier.weight": np.zeros((2, 32), np.float32),
    }
    loaded = load(write({**old, **heads}))
    # A buffer follows from the config: nobody misses it.
    del heads["bert.embeddings.position_ids"]
    assert loaded.ignored == tuple(sorted(heads))
    np.testing.assert_array_equal(
        loaded.encoder["layer_1"]["attention"]["norm"]["scale"],
        tensors["encoder.layer.1.attention.output.LayerNorm.weight"],
    )


def test_a_tensor_under_two_names_is_refused(write, tensors):
    with pytest.raises(ValueError, match=r"extra tensors: .*\(beside"):
        load(write({**tensors, f"bert.{QUERY}": tensors[QUERY]}))


def test_shapes_that_contradict_the_config_list_the_first_three(write, tensors):
    folder = write(tensors)
    attributes = {**read_config(folder), "intermediate_size": 40, "vocab_size": 61}
    (folder / "config.json").write_text(json.dumps(attributes))
    with pytest.raises(ValueError, match=r"contradict config\.json") as error:
        load(folder)
    text = str(error.value)
    assert "word_embeddings.weight is (60, 32), expected (61, 32)" in text
    # Their layout, [out, in], not ours.
    assert "intermediate.dense.weight is (48, 32), expected (40, 32)" in text
    assert text.count("expected") == 3
    assert "and 4 more" in text


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_become_float32(write, tensors, dtype):
    cast = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    loaded = load(write(cast))
    for leaf in flatten_paths(loaded.encoder).values():
        assert leaf.dtype == np.float32
    want = tensors[QUERY].astype(dtype).astype(np.float32).T
    got = loaded.encoder["layer_1"]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(got, want)


def test_integer_weights_are_refused(write, tensors):
    quantised = {**tensors, QUERY: tensors[QUERY].astype(np.int8)}
    with pytest.raises(ValueError, match=r"query\.weight is I8, expected floats"):
        load(write(quantised))


def _shard(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_load_as_one_file_does(write, tensors):
    folder = write(tensors)
    whole = load(folder)
    _shard(folder, tensors)
    shards = load(folder)
    assert_same_tree(shards.encoder, whole.encoder)
    # In the encoder's order, too, whatever lies in which file.
    assert list(flatten_paths(shards.encoder)) == list(flatten_paths(whole.encoder))
    assert_same_tree(shards.pooler, whole.pooler)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks the shards model-00002-of-00002"):
        load(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match="no readable weight_map"):
        load(folder)


def test_the_digest_follows_the_weights(write, tensors):
    folder = write(tensors)
    before = load(folder).digest
    assert load(folder).digest == before
    changed = tensors[QUERY].copy()
    changed[0, 0] += 1
    save_file({**tensors, QUERY: changed}, folder / "model.safetensors")
    assert load(folder).digest != before


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_damaged_file_is_one_line(write, tensors, keep):
    folder = write(tensors)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged or cut short") as error:
        load(folder)
    assert "\n" not in str(error.value)


class _Payload:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_pickles_are_never_loaded(write, tensors, tmp_path):
    folder, target = write(tensors), tmp_path / "executed"
    (folder / "model.safetensors").unlink()
    payload = pickle.dumps(_Payload(target))
    (folder / "pytorch_model.bin").write_bytes(payload)
    with pytest.raises(ValueError, match=r"sweet-jax convert --from_torch"):
        load(folder)
    assert not target.exists()
    pickle.loads(payload)
    assert target.exists()  # the payload would have worked


def test_a_folder_without_any_weights_says_so(tmp_path, config_text):
    (tmp_path / "config.json").write_text(config_text)
    with pytest.raises(ValueError, match=r"has no model\.safetensors and no"):
        load(tmp_path)


def test_export_refuses_parameters_of_another_config(write, tensors, tmp_path):
    source = write(tensors)
    loaded, config = load(source), load_config(source)
    encoder = {**loaded.encoder, "adapter": {"kernel": np.ones((2, 2))}}
    with pytest.raises(ValueError, match="adapter/kernel"):
        export_encoder(encoder, None, config, read_config(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_check_lists_what_a_load_would_do(write, tensors, capsys):
    ids = {"embeddings.position_ids": np.arange(40)[None]}
    folder = write({**tensors, **ids})
    assert run_command("convert", "--check", str(folder)) == 0
    text = capsys.readouterr().out
    assert "39 tensors to load, pooler included" in text
    assert "ignored, not part of the encoder: embeddings.position_ids" in text
    save_file({QUERY: tensors[QUERY]}, folder / "model.safetensors")
    assert run_command("convert", "--check", str(folder)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.reference
def test_from_torch_converts_pickles(write, tensors, tmp_path, capsys):
    import torch

    folder, out = write(tensors), tmp_path / "out"
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").write_text("a")
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    # Tied weights share memory in the pickle.
    state["cls.predictions.decoder.weight"] = state["embeddings.word_embeddings.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 0
    loaded = load(out)
    got = loaded.encoder["layer_1"]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(got, tensors[QUERY].T)
    assert (out / "vocab.txt").read_text() == "a"
    # A second time: nothing is overwritten.
    capsys.readouterr()
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 2
    assert "already" in capsys.readouterr().err


@pytest.mark.reference
def test_from_torch_reads_shards(write, tensors, tmp_path):
    import torch

    folder, out = write(tensors), tmp_path / "out"
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-0000{i + 1}-of-00002.bin"
        torch.save({n: torch.from_numpy(tensors[n]) for n in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 0
    assert not (out / index.name).exists()
    assert load(out).pooler is not None


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["payload", "cut", "list", "none"])
def test_from_torch_refuses_what_is_not_plain_tensors(
    write, tensors, tmp_path, capsys, kind
):
    import torch

    folder, target = write(tensors), tmp_path / "executed"
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    if kind == "payload":
        torch.save({"a": _Payload(target)}, file)
    elif kind == "cut":
        torch.save({"a": torch.ones(1000)}, file)
        file.write_bytes(file.read_bytes()[:900])
    elif kind == "list":
        torch.save([1, 2], file)
    out = tmp_path / "out"
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not target.exists()
    assert not out.exists()


def test_check_reads_the_weights(write, tensors, capsys):
    spoilt = {**tensors, QUERY: np.full_like(tensors[QUERY], np.nan)}
    assert run_command("convert", "--check", str(write(spoilt))) == 2
    assert "1024 of 1024 weights that are NaN" in capsys.readouterr().err


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_exports_have_the_mode_of_any_new_file(write, tensors, tmp_path, mask):
    source = write(tensors)
    loaded, config = load(source), load_config(source)
    before = os.umask(mask)
    try:
        export_encoder(
            loaded.encoder, None, config, read_config(source), tmp_path / "out"
        )
    finally:
        os.umask(before)
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()}
    assert modes == {0o666 & ~mask}


def test_code_of_a_config_does_not_travel(write, tensors, tmp_path):
    source = write(tensors)
    attributes = {**read_config(source), "auto_map": {"AutoModel": "x.Model"}}
    loaded, config = load(source), load_config(source)
    export_encoder(loaded.encoder, None, config, attributes, tmp_path / "out")
    assert read_config(tmp_path / "out") == read_config(source)
