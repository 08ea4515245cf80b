"""DeBERTa and its successors: distances, buckets, convolution, the shared table."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_deberta_v3 import CONFIG
from recorded import load_recorded, make_batch
from safetensors.numpy import save_file
from segment_tables import check_trained_tables, trace_layers
from tiny_configs import TINY_CONFIGS

import sweet_jax
from sweet_jax.arrays import LogitBank
from sweet_jax.data.sources import load_task
from sweet_jax.huggingface.config import load_config, make_encoder, parse_config
from sweet_jax.huggingface.pickles import convert_from_torch
from sweet_jax.huggingface.safetensors import export_encoder, load_encoder
from sweet_jax.models.multi_exit import find_segment
from sweet_jax.models.shared_tables import copy_tables
from sweet_jax.runs import pipeline
from sweet_jax.runs.inputs import prepare
from sweet_jax.runs.workdir import read_settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.trees import flatten_paths

TABLE = "distance/embedding"


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("deberta", {"relative_attention": False}, r"relative_attention=False is not"),
        ("deberta", {"relative_attention": None}, r"relative_attention=None is not"),
        ("deberta", {"pos_att_type": "c2p"}, r"pos_att_type='c2p' is not.*'c2p\|p2c'"),
        ("deberta", {"pos_att_type": ["c2p", "p2c", "p2p"]}, r"pos_att_type=\["),
        ("deberta", {"talking_head": True}, r"talking_head=True is not impl"),
        ("deberta", {"embedding_size": 8}, r"embedding_size=8 is .*allowed is 16,"),
        ("deberta", {"position_buckets": 8}, r"unknown attribute position_buckets"),
        ("deberta", {"position_biased_input": 1}, r"_input=1 is not of type bool"),
        ("deberta", {"max_relative_positions": -2}, r"=-2 must be at least -1"),
        ("deberta", {"max_position_embeddings": True}, r"=True is not of type int"),
        ("deberta-v2", {"attention_head_size": 4}, r"size=4 is not .*allowed is 8,"),
        ("deberta-v2", {"norm_rel_ebd": "rms"}, r"norm_rel_ebd='rms' is not impl"),
        ("deberta-v2", {"conv_kernel_size": 4}, r"conv_kernel_size=4 is not impl"),
        ("deberta-v2", {"conv_groups": 2}, r"conv_groups=2 is not implemented"),
        ("deberta-v2", {"conv_act": "mish"}, r"conv_act='mish' is not implemented"),
        ("deberta-v2", {"position_buckets": 1}, r"config.json: position_buckets=1 mus"),
        ("deberta-v2", {"position_buckets": 62}, r"=62 must be .* less than 31"),
    ],
)
def test_other_mathematics_is_refused_by_name(family, change, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_config({**TINY_CONFIGS[family], **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["relative_attention", "pos_att_type"])
def test_absent_attributes_that_make_another_model_are_refused(name):
    attributes = dict(TINY_CONFIGS["deberta"])
    del attributes[name]
    with pytest.raises(ValueError, match=rf"{name}=(False|None) is not implemented"):
        parse_config(attributes)


def test_stray_keys_and_spellings_of_hub_configs_are_read():
    attributes = TINY_CONFIGS["deberta-v2"]
    stray = {
        "pos_att_type": ["c2p", "p2c"],
        "attention_head_size": 8,
        "embedding_size": 16,
        "pooler_dropout": 0,
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": 16,
        "padding_idx": 0,
        "legacy": True,
    }
    assert parse_config({**attributes, **stray}) == parse_config(attributes)


# What the published files of v1, v2 and v3 hold beside the encoder.
HEADS = (
    "deberta.embeddings.position_embeddings.weight",
    "lm_predictions.lm_head.dense.weight",
    "mask_predictions.classifier.bias",
    "cls.predictions.decoder.weight",
    "pooler.dense.weight",
    "classifier.weight",
)


def get_published_tensors() -> dict[str, np.ndarray]:
    """Returns the tensors of the recorded v3 as a published file names them."""
    arrays = load_recorded("deberta_v3").arrays
    tensors = {
        f"deberta.{name.removeprefix('tensor/')}": array
        for name, array in arrays.items()
        if name.startswith("tensor/")
    }
    return tensors | {name: np.ones((2, 2), np.float32) for name in HEADS}


def check_equal(one: Any, other: Any) -> None:
    one, other = flatten_paths(one), flatten_paths(other)
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[path], err_msg=path)


def test_heads_and_unread_positions_of_published_files_are_ignored(tmp_path):
    recorded = load_recorded("deberta_v3")
    recorded.write_folder(tmp_path)
    save_file(get_published_tensors(), tmp_path / "model.safetensors")
    loaded = load_encoder(tmp_path, load_config(tmp_path), 2)
    check_equal(loaded.encoder, recorded.loaded.encoder)
    assert loaded.pooler is None
    assert set(loaded.ignored) == set(HEADS)


def test_a_folder_of_pickles_says_how_to_convert(tmp_path):
    load_recorded("deberta_v3").write_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    message = r"pickled weights only.*--from_torch .*encoder\.revision"
    with pytest.raises(ValueError, match=message) as error:
        load_encoder(tmp_path, load_config(tmp_path), 2)
    assert "\n" not in str(error.value)


@pytest.mark.reference
def test_published_pickles_are_converted(tmp_path):
    import torch

    recorded = load_recorded("deberta_v3")
    recorded.write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "spm.model").write_bytes(b"words")
    tensors = {k: torch.from_numpy(v) for k, v in get_published_tensors().items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    convert_from_torch(tmp_path, tmp_path / "out")
    config = load_config(tmp_path / "out")
    loaded = load_encoder(tmp_path / "out", config, 2)
    check_equal(loaded.encoder, recorded.loaded.encoder)
    assert (tmp_path / "out" / "spm.model").read_bytes() == b"words"


@pytest.mark.slow
def test_each_segment_reads_its_copy_of_the_table_and_its_norm():
    config = parse_config(TINY_CONFIGS["deberta-v2"])
    encoder = make_encoder(config, 3, jnp.float32).clone(table_starts=(0, 1))
    ids = np.random.default_rng(0).integers(0, 60, (1, 6))
    batch = make_batch(ids)
    params = encoder.init(jax.random.key(0, impl="rbg"), batch)["params"]
    paths = [f"encoder/{path}" for path in flatten_paths(params)]
    owners = {path: find_segment(path, (0, 2)) for path in paths if "shared" in path}
    parts = (TABLE, "norm/bias", "norm/scale")
    assert owners == {
        f"encoder/shared_{i}/{part}": i for i in range(2) for part in parts
    }

    run = trace_layers(encoder, batch)
    before = run(params)
    for part, name in (("distance", "embedding"), ("norm", "scale")):
        copy = params["shared_1"]
        leaf = copy[part][name]
        # Ones would be normed away, and shift all scores of a query alike.
        tilted = leaf + jnp.arange(leaf.size).reshape(leaf.shape) % 5
        changed = {**copy, part: {**copy[part], name: tilted}}
        after = run({**params, "shared_1": changed})
        moved = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
        assert moved == [False, True, True], part


@pytest.mark.parametrize("leaf", [TABLE, "norm/scale"])
def test_equal_copies_are_exported_as_one_and_others_are_refused(tmp_path, leaf):
    recorded = load_recorded("deberta_v3")
    loaded, config = recorded.loaded, recorded.config
    copies = copy_tables(loaded.encoder, 2)
    export_encoder(copies, None, config, CONFIG, tmp_path / "equal")
    again = load_encoder(tmp_path / "equal", load_config(tmp_path / "equal"), 2)
    check_equal(again.encoder, loaded.encoder)
    part, name = leaf.split("/")
    table = copies["shared_1"]
    drifted = {**table, part: {**table[part], name: table[part][name] + 1e-6}}
    copies["shared_1"] = drifted
    message = rf"shared_1/{leaf} differs.*method=early_exit"
    with pytest.raises(ValueError, match=message):
        export_encoder(copies, None, config, CONFIG, tmp_path / "drifted")
    assert not (tmp_path / "drifted").exists()


@pytest.mark.slow
def test_a_pooler_cannot_come_from_a_checkpoint_without_one(tiny_config, tiny_deberta):
    tiny_config["encoder"]["name"] = str(tiny_deberta)
    tiny_config["exits"]["pooler_init"] = "checkpoint"
    with pytest.raises(SettingsError, match=r"no pooler: set exits\.pooler_init=fresh"):
        prepare(from_config_dict(tiny_config))


def make_faithful(config: dict[str, Any], encoder: Path) -> dict[str, Any]:
    """Returns the config with nothing given that faithful_release says otherwise."""
    data = config["data"]
    for name in ("max_train_examples", "max_length", "buckets"):
        del data[name]
    return config | {
        "encoder": {"name": str(encoder)},
        "train": {},
        "faithful_release": True,
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sweet", "multi_model"])
def test_a_faithful_run_of_a_deberta_trains_and_is_served(
    tiny_config, make_tiny_encoder, shared_cache, tmp_path, monkeypatch, method
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    config = make_faithful(tiny_config, make_tiny_encoder("deberta"))
    settings = from_config_dict(
        config | {"method": method, "exits": {"layers": (0, 1)}}
    )
    path, results = pipeline.run(settings, tmp_path / "run", quiet=True)
    assert results["faithful_release"]
    stored = from_config_dict(read_settings(path))
    assert stored.exits.pooler_init == "fresh"  # The checkpoint has none.
    classifier = sweet_jax.load(path / "model")
    assert classifier.model.pooler_activation == "gelu"
    served = classifier.collect(load_task(settings.data).splits["test"])
    measured = LogitBank.load(path / "logits_test.npz")
    np.testing.assert_allclose(served.logits, measured.logits, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_family_that_was_not_released_is_refused_with_a_way_out(
    tiny_config, tiny_deberta, make_tiny_encoder
):
    config = make_faithful(tiny_config, tiny_deberta)
    told = "released code has bert and deberta only; set encoder.name .* or drop"
    with pytest.raises(SettingsError, match=told):
        prepare(from_config_dict(config))
    prepare(from_config_dict(config | {"faithful_release": False}))
    config["encoder"]["name"] = str(make_tiny_encoder("bert"))
    prepare(from_config_dict(config))


@pytest.mark.slow
def test_a_sweet_run_trains_and_serves_a_table_for_each_segment(
    tiny_config, tiny_deberta, shared_cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    tables = {
        TABLE: "encoder.rel_embeddings.weight",
        "norm/scale": "encoder.LayerNorm.weight",
    }
    check_trained_tables(tiny_config, tiny_deberta, tmp_path / "run", tables)
