"""Attention: probabilities, masks, heads, and the replaceable step between."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.models.attention import SelfAttention
from sweet_jax.models.masked_softmax import compute_masked_softmax

_B, _L, _D, _H = 2, 5, 8, 2


def _make_block(**fields) -> SelfAttention:
    rates = {"attention_dropout": 0.1, "hidden_dropout": 0.1}
    return SelfAttention(
        num_heads=_H, norm_epsilon=1e-5, init_std=0.5, **rates, **fields
    )


def _make_params(block: SelfAttention, rng) -> dict:
    """Returns random parameters, biases included, without compiling anything."""
    x_BLD, mask = jnp.zeros((_B, _L, _D)), jnp.ones((_B, 1, 1, _L), bool)
    shapes = jax.eval_shape(
        lambda key: block.init(key, x_BLD, mask, False), jax.random.key(0)
    )
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes["params"]
    )


def _make_inputs(rng) -> tuple[jax.Array, jax.Array]:
    x_BLD = jnp.asarray(rng.normal(size=(_B, _L, _D)), jnp.float32)
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)[:, None, None]
    return x_BLD, mask


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 100.0, 1e30]))
def test_probabilities_are_a_softmax_over_readable_keys(seed, scale):
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=(3, 2, 4, 6)) * scale).astype(np.float32)
    mask = rng.random((3, 1, 4, 6)) < 0.6
    got = np.asarray(compute_masked_softmax(jnp.asarray(scores), jnp.asarray(mask)))
    for b, h, i in np.ndindex(3, 2, 4):
        keys = mask[b, 0, i]
        if not keys.any():
            np.testing.assert_allclose(got[b, h, i], 1 / 6, rtol=1e-6)
            continue
        row = scores[b, h, i, keys].astype(np.float64)
        want = np.exp(row - row.max())
        np.testing.assert_allclose(got[b, h, i, keys], want / want.sum(), atol=1e-6)
        assert (got[b, h, i, ~keys] == 0).all()


def test_a_row_without_keys_has_finite_values_and_gradients():
    scores = jnp.asarray([[[[3.0, -2.0, 5.0]]]])
    mask = jnp.zeros((1, 1, 1, 3), bool)
    weights = jnp.asarray([1.0, 2.0, 3.0])

    def compute_loss(scores):
        return (compute_masked_softmax(scores, mask)[0, 0, 0] * weights).sum()

    value, gradient = jax.value_and_grad(compute_loss)(scores)
    np.testing.assert_allclose(value, 2.0, rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros((1, 1, 1, 3)))


def test_the_block_is_the_textbook_loop(rng):
    x_BLD, mask = _make_inputs(rng)
    block = _make_block()
    params = _make_params(block, rng)
    run = jax.jit(lambda params: block.apply({"params": params}, x_BLD, mask, False))
    got = run(params)

    x, p = np.asarray(x_BLD, np.float64), jax.tree.map(np.float64, params)
    size = _D // _H
    context = np.zeros_like(x)
    for b, h in np.ndindex(_B, _H):
        part = slice(h * size, (h + 1) * size)
        q, k, v = (
            (x[b] @ p[name]["kernel"] + p[name]["bias"])[:, part]
            for name in ("query", "key", "value")
        )
        weights = np.exp(q @ k.T / np.sqrt(size)) * np.asarray(mask[b, 0])
        context[b, :, part] = (weights / weights.sum(-1, keepdims=True)) @ v
    y = x + context @ p["output"]["kernel"] + p["output"]["bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        got, y * p["norm"]["scale"] + p["norm"]["bias"], atol=1e-5
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_replaced_step_gets_float32_scores_and_the_mask(rng, dtype):
    x_BLD, mask = _make_inputs(rng)
    seen = []

    def attend_uniformly(scores_BHLM, mask):
        seen.append((scores_BHLM.dtype, scores_BHLM.shape, mask.shape))
        return jnp.full(scores_BHLM.shape, 1 / _L, jnp.float32)

    block = _make_block(attention_fn=attend_uniformly, dtype=dtype)
    params = _make_params(block, rng)
    assert seen[-1] == (jnp.float32, (_B, _H, _L, _L), (_B, 1, 1, _L))

    def compute_loss(params):
        out = block.apply({"params": params}, x_BLD, mask, False)
        return (out.astype(jnp.float32) ** 2 * jnp.arange(1.0, 9.0)[None, None]).sum()

    gradient = jax.jit(jax.grad(compute_loss))(params)
    # Constant probabilities leave queries and keys without any say.
    assert all(
        (leaf == 0).all()
        for name in ("query", "key")
        for leaf in jax.tree.leaves(gradient[name])
    )
    assert jnp.abs(gradient["value"]["kernel"]).max() > 0


def test_attention_dropout_acts_on_probabilities(rng):
    x_BLD, mask = _make_inputs(rng)
    block = SelfAttention(
        num_heads=_H,
        attention_dropout=0.5,
        hidden_dropout=0.0,
        norm_epsilon=1e-5,
        init_std=0.5,
    )
    variables = {"params": _make_params(block, rng)}

    @functools.partial(jax.jit, static_argnums=0)
    def run(train: bool, seed: int):
        # This generator compiles in a fraction of the default one's time.
        keys = {"dropout": jax.random.key(seed, impl="rbg")}
        return block.apply(variables, x_BLD, mask, train, rngs=keys)

    np.testing.assert_array_equal(run(True, 0), run(True, 0))
    assert (run(True, 0) != run(True, 1)).any()
    assert (run(True, 0) != run(False, 0)).any()
