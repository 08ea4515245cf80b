"""An encoder's folder comes from anyone: it loads, or is one line, at once."""

import json
import os
import re
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_configs import TINY_CONFIGS

from sweet_jax.arrays import Batch
from sweet_jax.huggingface.config import load_config, make_encoder, parse_config
from sweet_jax.huggingface.families import FAMILIES
from sweet_jax.huggingface.safetensors import (
    compute_shapes,
    load_encoder,
)
from sweet_jax.models.layers import ACTIVATIONS
from sweet_jax.trees import flatten_paths

WEIGHTS = "model.safetensors"
KERNEL = "encoder.layer.1.output.dense.weight"


@pytest.fixture
def folder(tiny_encoder, tmp_path):
    """A copy that a test may damage, without its tokenizer."""
    for name in ("config.json", WEIGHTS):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    return tmp_path


def load(folder: Path):
    config = load_config(folder)
    return load_encoder(folder, config, config.num_layers)


def refuse(folder: Path, match: str) -> str:
    """The folder is refused in one short line, at once; returns the line."""
    start = time.monotonic()
    with pytest.raises(ValueError, match=match) as error:
        load(folder)
    assert time.monotonic() - start < 5
    line = str(error.value)
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 1500
    return line


def change_config(folder: Path, **attributes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **attributes}))


def change_tensors(folder: Path, change) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def change_header(folder: Path, change) -> None:
    data = (folder / WEIGHTS).read_bytes()
    stop = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:stop])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[stop:])


# Weights.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_counted_and_named(folder, value):
    def spoil(tensors):
        tensors[KERNEL] = tensors[KERNEL].copy()
        tensors[KERNEL][0, :3] = value
        return tensors

    change_tensors(folder, spoil)
    line = refuse(folder, rf"{WEIGHTS}: {re.escape(KERNEL)} has 3 of \d+ weights")
    assert "diverged, or the file is damaged" in line
    assert load_encoder(folder, load_config(folder), 1)  # It is not in this layer.


def test_what_float32_cannot_hold_is_infinite(folder):
    change_tensors(
        folder,
        lambda tensors: {**tensors, KERNEL: np.full(tensors[KERNEL].shape, 1e60)},
    )
    refuse(folder, "NaN or infinite")


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "model.",
        "model.bert.",
        "encoder.bert.",
        "encoder.model.",
        "auto_model.",
        "0.auto_model.",
    ],
)
def test_known_wrappers_are_stripped(folder, prefix):
    want = flatten_paths(load(folder).encoder)
    change_tensors(folder, lambda tensors: {prefix + n: t for n, t in tensors.items()})
    got = flatten_paths(load(folder).encoder)
    assert got.keys() == want.keys()
    for path, leaf in want.items():
        np.testing.assert_array_equal(got[path], leaf)


def test_another_prefix_is_named_in_a_short_line(folder):
    change_tensors(
        folder, lambda tensors: {f"net.own\x1b.{n}": t for n, t in tensors.items()}
    )
    line = refuse(folder, r"tensors begin with 'net\.own\\\\x1b\.'")
    assert re.search(r"missing tensors: .* and \d+ more \| extra .* and \d+ more", line)


def test_a_shape_that_no_memory_holds_is_refused_unread(folder):
    change_header(folder, lambda header: header[KERNEL].update(shape=[2**40, 16]))
    refuse(folder, "damaged or cut short")
    change_header(folder, lambda header: header.update({KERNEL: [1]}))
    refuse(folder, "damaged or cut short")


def test_a_long_header_is_refused_unread(folder):
    text = b'{"a": "' + b"x" * (5 << 20) + b'"}'
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text)
    refuse(folder, "header of .* bytes, at most")


def test_weights_that_cannot_be_mapped_are_one_line(folder):
    os.truncate(folder / "model.safetensors", 1 << 36)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 35, limits[1]))
    try:
        refuse(folder, "model.safetensors cannot be read .*memory")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# Sizes.


@pytest.mark.parametrize("family", TINY_CONFIGS)
def test_layers_behind_the_second_have_its_shapes(family):
    """So that shapes of a thousand layers take no time; here all are traced."""
    config = parse_config(TINY_CONFIGS[family])
    ids, row = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
    batch = Batch(ids, ids, ids, row, jnp.zeros((1,)), row)
    encoder = make_encoder(config, config.num_layers, jnp.float32)
    assert config.num_layers > 2
    tree = jax.eval_shape(encoder.init, jax.random.key(0), batch)["params"]
    want = {path: leaf.shape for path, leaf in flatten_paths(tree).items()}
    got = compute_shapes(config, config.num_layers)
    behind = ("pooler", "final_norm")
    got = {p: s for p, s in got.items() if not p.startswith(behind)}
    assert got == want
    assert list(got) == list(want)


@pytest.mark.parametrize(
    "attributes",
    [
        {"num_hidden_layers": 1000},
        {"num_hidden_layers": 3000},
        {"num_hidden_layers": 2**40},
        {"vocab_size": 2**40},
        {"vocab_size": 10_000_000},
        {"hidden_size": 2**40},
        {"intermediate_size": 10**400},
        {"max_position_embeddings": 2**40},
        {"hidden_dropout_prob": 1.0},
        {"layer_norm_eps": 10**400},
        {"model_type": "modernbert", "num_hidden_layers": 2**40},
    ],
    ids=lambda attributes: str(attributes)[:60],
)
def test_sizes_that_no_encoder_has_are_refused_at_once(folder, attributes):
    change_config(folder, **attributes)
    refuse(folder, r"must be|missing tensors|contradict|is not of type")


@pytest.mark.parametrize(
    "value",
    [None, True, -1, 1.5, 10**400, "x", "\x1b[31m", [], {"a": 1}, [[]]],
    ids=str,
)
@pytest.mark.parametrize("name", [*FAMILIES["bert"].fields])
def test_odd_values_load_or_are_one_line(folder, name, value):
    change_config(folder, **{name: value})
    try:
        load_config(folder)
    except ValueError:
        refuse(folder, rf"{name}|missing tensors|contradict")


@pytest.mark.parametrize("value", [["bert"], None, 5, {"a": 1}, "b\x1b[31m"], ids=str)
def test_an_odd_model_type_is_one_line(folder, value):
    change_config(folder, model_type=value)
    refuse(folder, r"model_type .* is not supported: supported are bert")


def test_harmless_attributes_may_hold_anything(folder):
    plain = load_config(folder)
    change_config(folder, classifier_dropout="abc", id2label=["a"], torch_dtype=5)
    change_config(folder, language="en", name="x", loss_type=None, max_seq_length=7)
    assert load_config(folder) == plain


def test_code_of_model_classes_is_said_and_not_exported(folder, caplog):
    caplog.set_level("INFO")
    change_config(folder, auto_map={"AutoModel": "modeling.Model"})
    assert load_config(folder).family == "bert"
    assert "auto_map), which is never run: it is read as a standard bert" in caplog.text


def test_a_pipe_is_not_waited_for(folder):
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    refuse(folder, "has no model.safetensors")


def test_the_old_layout_of_sentence_transformers_leads_to_its_part(folder):
    part = folder / "0_Transformer"
    part.mkdir()
    for name in ("config.json", WEIGHTS):
        (folder / name).rename(part / name)
    modules = [{"path": "0_Transformer", "type": "sentence_transformers.models.T"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    for text in (None, '{"__version__": "0.3.8"}'):
        if text is not None:
            (folder / "config.json").write_text(text)
        line = refuse(folder, "old layout: its encoder lies in")
        load(Path(line.split(" lies in ")[1].split(":")[0]))  # The advice leads out.
    modules[0]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    refuse(folder, "no model_type")


# Activations.


@pytest.mark.parametrize("name", ["gelu_fast", "gelu_python", "gelu_accurate", "swish"])
def test_names_of_one_activation_are_one_function(name):
    """Against the formulas that transformers has under these names."""
    x = jnp.linspace(-6, 6, 101)
    tanh = 0.5 * x * (1 + jnp.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x)))
    want = {
        "gelu_fast": tanh,
        "gelu_accurate": tanh,
        "gelu_python": x * 0.5 * (1 + jax.scipy.special.erf(x / np.sqrt(2.0))),
        "swish": x / (1 + jnp.exp(-x)),
    }
    np.testing.assert_allclose(ACTIVATIONS[name](x), want[name], atol=1e-6)


@pytest.mark.parametrize("name", ["quick_gelu", "gelu_10", "mish", "relu6", "linear"])
def test_other_activations_are_refused_with_the_allowed_ones(folder, name):
    change_config(folder, hidden_act=name)
    refuse(folder, rf"hidden_act='{name}' is not implemented: allowed are 'gelu', ")
