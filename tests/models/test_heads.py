"""Dense layers to heads, and selections of heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.models.heads import HeadDense, merge_heads, take_heads
from sweet_jax.models.layers import make_dense


@settings(max_examples=60, deadline=None)
@given(heads=st.lists(st.integers(0, 6), max_size=9))
def test_heads_are_taken_in_any_order(heads):
    x = jnp.arange(2 * 7 * 3).reshape(2, 7, 3) * 1.0
    np.testing.assert_array_equal(take_heads(x, heads, 1), np.asarray(x)[:, heads])


@settings(max_examples=30, deadline=None)
@given(heads=st.sets(st.integers(0, 5)))
def test_merged_heads_are_where_they_were(heads):
    x, chosen = jnp.arange(6.0)[None], sorted(heads)
    rest = [i for i in range(6) if i not in heads]
    got = merge_heads(take_heads(x, rest, 1), take_heads(x, chosen, 1), chosen, 1)
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_all_heads_are_those_of_a_dense_layer_bit_for_bit(rng, dtype):
    x = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    dense = make_dense(8, 0.5, dtype, "dense")
    variables = dense.init(jax.random.key(0), x)
    got = HeadDense(8, 4, 0.5, dtype).apply(variables, x, range(4))
    assert got.shape == (2, 3, 4, 2)
    want = dense.apply(variables, x)
    np.testing.assert_array_equal(got.reshape(2, 3, 8), want)


def test_columns_of_left_out_heads_are_not_read(rng):
    x = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    dense = HeadDense(8, 4, 0.5)
    params = dense.init(jax.random.key(0), x, range(4))["params"]
    params = jax.tree.map(lambda p: p + 0.5, params)
    whole = dense.apply({"params": params}, x, range(4))
    broken = jax.tree.map(lambda p: p.at[..., 2:6].set(jnp.nan), params)
    some = dense.apply({"params": broken}, x, (0, 3))
    np.testing.assert_allclose(some, whole[:, :, np.array([0, 3])], rtol=1e-5)
    assert dense.apply({"params": broken}, x, ()).shape == (2, 3, 0, 2)
