"""BERT, and through it what all encoders do: masks, depth, remat, dropout, paths."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded import make_batch

from sweet_jax.arrays import Batch
from sweet_jax.huggingface.config import make_encoder
from sweet_jax.huggingface.safetensors import (
    compute_shapes,
    load_encoder,
)
from sweet_jax.models.bert import BertConfig, BertEncoder
from sweet_jax.models.masked_softmax import compute_masked_softmax
from sweet_jax.trees import flatten_paths

pytestmark = pytest.mark.usefixtures("highest_precision")

NUM_LAYERS = 2


@pytest.fixture(scope="module")
def folder(recorded, tmp_path_factory) -> Path:
    return recorded.write_folder(tmp_path_factory.mktemp("tiny_bert"))


def golden_batch(golden, case: str) -> Batch:
    return make_batch(
        *(golden[f"input/{case}/{key}"] for key in ("token_ids", "type_ids", "mask"))
    )


@functools.cache
def make_runner(config: BertConfig, num_layers: int = NUM_LAYERS, **fields: Any):
    """Returns a jitted (params, batch) -> last layer; compiled once per shape."""
    encoder = BertEncoder(config, num_layers, **fields)
    return jax.jit(lambda params, batch: encoder.apply({"params": params}, batch))


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
