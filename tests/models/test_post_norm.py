"""Embeddings and layers of the post-norm families, module by module."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded import make_batch

from sweet_jax.arrays import Batch
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.huggingface.safetensors import load_encoder
from sweet_jax.models.bert import BertConfig
from sweet_jax.models.post_norm import Embeddings, PostNormConfig, PostNormLayer
from sweet_jax.settings.fields import EncoderSettings

pytestmark = pytest.mark.usefixtures("highest_precision")

NUM_LAYERS = 2


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


def test_bfloat16_computes_near_float32_on_float32_parameters(
    recorded, golden, config, loaded
):
    batch = recorded.make_batch("padded")
    encoder = make_encoder(config, NUM_LAYERS, jnp.bfloat16)
    params = jax.eval_shape(encoder.init, jax.random.key(0), batch)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    last = run_modules(config, loaded.encoder, batch, jnp.bfloat16)
    assert last.dtype == jnp.bfloat16
    error = np.abs(last.astype(jnp.float32) - golden["output/padded/layer_1"])
    # The products of this model's large random weights keep 8 bits each.
    assert error.mean() < 0.05
    assert error.max() < 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftedConfig(PostNormConfig):
    """Positions begin at a row of their own, as RoBERTa's do."""

    @property
    def position_offset(self) -> int:
        """Row 3."""
        return 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class BareConfig(PostNormConfig):
    """No table of positions, as DeBERTa's."""

    @property
    def has_position_table(self) -> bool:
        """No."""
        return False


def make_small(kind: type[PostNormConfig], num_types: int = 0) -> PostNormConfig:
    return kind(
        family="small",
        vocab_size=11,
        hidden_size=4,
        num_layers=1,
        num_heads=2,
        intermediate_size=8,
        hidden_act="gelu",
        hidden_dropout=0.5,
        attention_dropout=0.1,
        num_positions=9,
        num_types=num_types,
        norm_epsilon=1e-6,
        initializer_range=0.3,
    )


@pytest.mark.parametrize(
    ("kind", "first", "longest"),
    [(PostNormConfig, 0, 9), (ShiftedConfig, 3, 6), (BareConfig, None, 9)],
)
@pytest.mark.parametrize("num_types", [0, 1, 2])
def test_embeddings_are_the_normed_sum_of_their_tables(
    rng, kind, first, longest, num_types
):
    config = make_small(kind, num_types)
    assert config.max_positions == longest
    sizes = {"word": 11, "type": num_types, "position": 9 if first is not None else 0}
    tables = {name: rng.normal(size=(n, 4)) for name, n in sizes.items() if n}
    norm = {name: rng.normal(size=4) for name in ("scale", "bias")}
    params = {n: {"embedding": x} for n, x in tables.items()} | {"norm": norm}
    ids, types = rng.integers(0, 11, (2, longest)), rng.integers(0, 2, (2, longest))
    embeddings = Embeddings(config)
    shapes = jax.eval_shape(
        functools.partial(embeddings.init, jax.random.key(0), train=False), ids, types
    )["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, shapes)
    got = embeddings.apply({"params": params}, ids, types, False)

    x_BLD = tables["word"][ids]
    if num_types:
        # A family of one type has its tokenizer's type ids ignored.
        x_BLD = x_BLD + tables["type"][types if num_types == 2 else 0 * types]
    if first is not None:
        x_BLD = x_BLD + tables["position"][first : first + longest]
    x_BLD = x_BLD - x_BLD.mean(-1, keepdims=True)
    x_BLD = x_BLD / np.sqrt((x_BLD**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(got, x_BLD * norm["scale"] + norm["bias"], atol=1e-5)


def test_embeddings_are_dropped_behind_their_norm(rng):
    embeddings, ids = Embeddings(make_small(PostNormConfig)), np.ones((2, 5), np.int32)
    key = jax.random.key(0, impl="rbg")
    params = embeddings.init(key, ids, ids, False)
    whole = np.asarray(embeddings.apply(params, ids, ids, False))
    dropped = np.asarray(
        embeddings.apply(params, ids, ids, True, rngs={"dropout": key})
    )
    kept = dropped != 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], 2 * whole[kept], rtol=1e-6)


def test_a_layer_reads_no_key_outside_of_its_mask(rng, config, loaded):
    layer = PostNormLayer(config)
    x_BLD = rng.normal(size=(2, 6, config.hidden_size)).astype(np.float32)
    mask_B11L = jnp.asarray([[1, 1, 1, 0, 1, 0]] * 2, bool)[:, None, None]

    def run(x_BLD: Any) -> np.ndarray:
        params = {"params": loaded.encoder["layer_0"]}
        return np.asarray(layer.apply(params, jnp.asarray(x_BLD), mask_B11L, False))

    changed = x_BLD.copy()
    changed[:, [3, 5]] += 1
    seen, before, after = [0, 1, 2, 4], run(x_BLD), run(changed)
    np.testing.assert_array_equal(before[:, seen], after[:, seen])
    changed[:, 2] += 1
    assert (run(changed)[:, seen] != after[:, seen]).all(axis=2).all()
