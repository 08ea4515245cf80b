"""BERT, and through it what all encoders do: masks, depth, remat, dropout, paths."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded import Recorded, load_recorded, make_batch

from sweet_jax.arrays import Batch
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.huggingface.safetensors import (
    LoadedEncoder,
    compute_shapes,
    load_encoder,
)
from sweet_jax.models.attention import compute_masked_softmax
from sweet_jax.models.bert import BertConfig, BertEncoder
from sweet_jax.models.post_norm import Embeddings, PostNormLayer
from sweet_jax.settings.fields import EncoderSettings
from sweet_jax.trees import flatten_paths

NUM_LAYERS = 2


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return load_recorded("bert")


@pytest.fixture(scope="module")
def golden(recorded) -> dict[str, np.ndarray]:
    return recorded.arrays


@pytest.fixture(scope="module")
def folder(recorded, tmp_path_factory) -> Path:
    return recorded.write_folder(tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture(scope="module")
def config(recorded) -> BertConfig:
    return recorded.config


@pytest.fixture(scope="module")
def loaded(recorded) -> LoadedEncoder:
    return recorded.loaded


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


def golden_batch(golden, case: str) -> Batch:
    return make_batch(
        *(golden[f"input/{case}/{key}"] for key in ("token_ids", "type_ids", "mask"))
    )


@functools.cache
def make_runner(config: BertConfig, num_layers: int = NUM_LAYERS, **fields: Any):
    """Returns a jitted (params, batch) -> last layer; compiled once per shape."""
    encoder = BertEncoder(config, num_layers, **fields)
    return jax.jit(lambda params, batch: encoder.apply({"params": params}, batch))


@functools.cache
def make_modules(config: BertConfig, dtype=jnp.float32) -> tuple[Callable, Callable]:
    """Returns jitted embeddings and layer: all layers share one compilation."""
    embeddings, layer = Embeddings(config, dtype), PostNormLayer(config, dtype)

    @jax.jit
    def run_embeddings(params, batch):
        variables = {"params": params}
        return embeddings.apply(variables, batch.token_ids, batch.type_ids, False)

    @jax.jit
    def run_layer(params, x_BLD, mask_BL):
        mask_B11L = mask_BL[:, None, None, :] != 0
        return layer.apply({"params": params}, x_BLD, mask_B11L, False)

    return run_embeddings, run_layer


def run_modules(config: BertConfig, params, batch: Batch, dtype=jnp.float32):
    """Returns the last layer, module after module."""
    run_embeddings, run_layer = make_modules(config, dtype)
    x_BLD = run_embeddings(params["embeddings"], batch)
    for i in range(sum(name.startswith("layer_") for name in params)):
        x_BLD = run_layer(params[f"layer_{i}"], x_BLD, batch.mask)
    return x_BLD


@pytest.mark.parametrize(
    "change", [{"hidden_act": "gelu_new"}, {"norm_epsilon": 1e-12}, {"num_heads": 8}]
)
def test_each_config_value_matters(golden, config, loaded, change):
    _, run_layer = make_modules(dataclasses.replace(config, **change))
    x_BLD = jnp.asarray(golden["output/padded/embeddings"])
    got = run_layer(loaded.encoder["layer_0"], x_BLD, golden["input/padded/mask"])
    # Ten times the tolerance of a module.
    assert np.abs(got - golden["output/padded/layer_0"]).max() > 1e-4


def test_the_embedded_encoder_equals_pytorch(golden):
    folder = find_encoder(EncoderSettings(name="minilm-l6"))
    config = load_config(folder)
    params = load_encoder(folder, config, config.num_layers).encoder
    batch = make_batch(golden["minilm/token_ids"], mask=golden["minilm/mask"])
    last = run_modules(config, params, batch)
    np.testing.assert_allclose(last, golden["minilm/last"], rtol=0, atol=1e-4)


def test_padding_changes_nothing(config, loaded, rng):
    ids = rng.integers(1, config.vocab_size, (3, 7))
    # The padding holds arbitrary tokens: nothing may read them.
    junk = rng.integers(1, config.vocab_size, (3, 5))
    mask = [[1] * 7 + [0] * 5] * 3
    short = run_modules(config, loaded.encoder, make_batch(ids))
    longer = make_batch(np.concatenate([ids, junk], 1), mask=mask)
    long = run_modules(config, loaded.encoder, longer)
    np.testing.assert_allclose(long[:, :7], short, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_padding_rows_stay_finite_and_so_do_gradients(config, loaded, dtype):
    layer = PostNormLayer(config, dtype)
    x_BLD = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 32)), dtype)
    mask = jnp.asarray([[1, 1, 1, 0], [0, 0, 0, 0]], bool)[:, None, None]

    @jax.jit
    @jax.value_and_grad
    def compute(params):
        out = layer.apply({"params": params}, x_BLD, mask, False)
        return (out.astype(jnp.float32) ** 2).sum()  # type: ignore[union-attr]

    value, gradient = compute(loaded.encoder["layer_0"])
    assert jnp.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_layer_ranges_compose(golden, config, loaded):
    encoder = BertEncoder(config, NUM_LAYERS)
    batch = golden_batch(golden, "padded")

    @jax.jit
    def run_in_parts(params):
        variables = {"params": params}
        carry = encoder.apply(variables, batch, False, method="embed")
        # An empty range first: nothing happens.
        for start, stop in ((0, 0), (0, 1), (1, 2)):
            carry = encoder.apply(
                variables, carry, start, stop, False, method="run_layers"
            )
        return carry

    parts = run_in_parts(loaded.encoder)
    whole = make_runner(config)(loaded.encoder, batch)
    np.testing.assert_allclose(parts["x_BLD"], whole["x_BLD"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(parts["mask_BL"], batch.mask)


def test_a_truncated_encoder_is_a_prefix(golden, folder, config):
    first = load_encoder(folder, config, 1).encoder
    batch = golden_batch(golden, "pairs")
    last = make_runner(config, num_layers=1)(first, batch)["x_BLD"]
    np.testing.assert_allclose(last, golden["output/pairs/layer_0"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("remat", [False, True])
def test_remat_marks_every_layer_in_training_too(config, remat):
    encoder = make_encoder(config, NUM_LAYERS, jnp.float32, remat)
    batch = make_batch(np.ones((1, 3), np.int32))
    key = jax.random.key(0)
    params = jax.eval_shape(encoder.init, key, batch)

    def run(params):
        return encoder.apply(params, batch, True, rngs={"dropout": key})

    # jax prints the primitive of jax.checkpoint with its parameter `prevent_cse`.
    program = str(jax.make_jaxpr(run)(params))
    assert program.count("prevent_cse") == (NUM_LAYERS if remat else 0)


def test_dropout_is_on_in_training_only(golden, config, loaded):
    encoder = BertEncoder(config, 1)
    batch = golden_batch(golden, "padded")

    @functools.partial(jax.jit, static_argnums=0)
    def run(train: bool, seed: int):
        # This generator compiles in a fraction of the default one's time.
        keys = {"dropout": jax.random.key(seed, impl="rbg")}
        variables = {"params": loaded.encoder}
        return encoder.apply(variables, batch, train, rngs=keys)["x_BLD"]  # type: ignore

    np.testing.assert_array_equal(run(False, 0), run(False, 1))
    np.testing.assert_array_equal(run(True, 0), run(True, 0))
    assert (run(True, 0) != run(True, 1)).any()
    assert (run(True, 0) != run(False, 0)).any()


def test_bfloat16_computes_near_float32_on_float32_parameters(golden, config, loaded):
    batch = golden_batch(golden, "padded")
    encoder = make_encoder(config, NUM_LAYERS, jnp.bfloat16)
    params = jax.eval_shape(encoder.init, jax.random.key(0), batch)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    last = run_modules(config, loaded.encoder, batch, jnp.bfloat16)
    assert last.dtype == jnp.bfloat16
    error = np.abs(last.astype(jnp.float32) - golden["output/padded/layer_1"])
    # The products of this model's large random weights keep 8 bits each.
    assert error.mean() < 0.05
    assert error.max() < 0.5


def test_the_attention_of_one_layer_can_be_replaced(golden, config, loaded):
    def attend_uniformly(scores_BHLM, mask):
        return jnp.full_like(scores_BHLM, 1 / scores_BHLM.shape[-1])

    batch = golden_batch(golden, "padded")
    fns = (compute_masked_softmax, attend_uniformly)
    last = make_runner(config, attention_fns=fns)(loaded.encoder, batch)["x_BLD"]
    assert np.abs(last - golden["output/padded/layer_1"]).max() > 1e-2
    # The other layer is untouched: replacing both gives something else again.
    fns = (attend_uniformly, attend_uniformly)
    both = make_runner(config, attention_fns=fns)(loaded.encoder, batch)["x_BLD"]
    assert np.abs(last - both).max() > 1e-2


def test_inputs_past_the_position_table_are_refused(config):
    batch = make_batch(np.ones((1, 41), np.int32))
    encoder = make_encoder(config, NUM_LAYERS, jnp.float32)
    with pytest.raises(ValueError, match=r"41 tokens .* 40 positions"):
        jax.eval_shape(encoder.init, jax.random.key(0), batch)


def test_parameter_paths_are_as_published(config):
    dense = ("kernel", "bias")
    norm = ("scale", "bias")
    layer = {
        "attention/query": dense,
        "attention/key": dense,
        "attention/value": dense,
        "attention/output": dense,
        "attention/norm": norm,
        "feed_forward/up": dense,
        "feed_forward/down": dense,
        "feed_forward/norm": norm,
    }
    want = {
        "embeddings/word": ("embedding",),
        "embeddings/position": ("embedding",),
        "embeddings/type": ("embedding",),
        "embeddings/norm": norm,
        **{f"layer_{i}/{part}": layer[part] for i in (0, 1) for part in layer},
        "pooler": dense,
    }
    got = compute_shapes(config, NUM_LAYERS)
    assert set(got) == {f"{part}/{leaf}" for part in want for leaf in want[part]}


def test_fresh_parameters_have_the_configured_spread(config):
    encoder = make_encoder(config, 1, jnp.float32)
    batch = make_batch(np.ones((1, 3), np.int32))
    # This generator compiles in a fraction of the default one's time.
    key = jax.random.key(0, impl="rbg")
    params = jax.jit(encoder.init)(key, batch)["params"]
    for path, leaf in flatten_paths(params).items():
        if path.endswith(("kernel", "embedding")):
            # The type table has 64 entries only: a wide band.
            assert 0.7 < leaf.std() / config.initializer_range < 1.3, path
        else:
            assert (leaf == (1.0 if path.endswith("scale") else 0.0)).all(), path
