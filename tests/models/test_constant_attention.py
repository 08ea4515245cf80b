"""Attention by constants: probabilities, gates, and layers without queries and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sweet_jax.models.attention import compute_masked_softmax
from sweet_jax.models.constant_attention import (
    compute_constant_probabilities,
    mix_attention,
)

# Real tokens need not come first, and the last row has none.
_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 1], [0, 1, 0, 1, 0], [0] * 5], bool)


def _make_constants(rng, heads: int = 2, length: int = 5) -> np.ndarray:
    return rng.uniform(0, 1, (heads, length, length)).astype(np.float32)


@pytest.mark.parametrize("reach", [None, 1])
@pytest.mark.parametrize("longest", [5, 7])
def test_constants_are_renormalised_over_pairs_of_real_tokens(rng, reach, longest):
    constants = _make_constants(rng, length=longest)
    mask = _MASK[:, None, None, :]
    if reach is not None:
        near = np.abs(np.arange(5)[:, None] - np.arange(5)) <= reach
        mask = mask & near[None, None]
    got = compute_constant_probabilities(jnp.asarray(constants), jnp.asarray(mask))
    assert got.shape == (4, 2, 5, 5)
    assert got.dtype == jnp.float32
    for b, h, i in np.ndindex(4, 2, 5):
        keys = np.array(
            [
                _MASK[b, i] & _MASK[b, j] & (reach is None or abs(i - j) <= reach)
                for j in range(5)
            ]
        )
        want = np.where(keys, constants[h, i, :5], 0).astype(np.float64)
        want = want / want.sum() if keys.any() else want
        np.testing.assert_allclose(got[b, h, i], want, atol=1e-6)


def test_a_query_without_any_weight_reads_nothing():
    mask = jnp.ones((1, 1, 1, 3), bool)
    got = compute_constant_probabilities(jnp.zeros((1, 3, 3)), mask)
    np.testing.assert_array_equal(got, np.zeros((1, 1, 3, 3)))


def test_inputs_longer_than_the_constants_are_refused():
    mask = jnp.ones((1, 1, 1, 6), bool)
    with pytest.raises(ValueError, match=r"6 tokens .* 5 positions: lower data\.max"):
        compute_constant_probabilities(jnp.zeros((1, 5, 5)), mask)


def test_gates_mix_each_head(rng):
    constants = jnp.asarray(_make_constants(rng, heads=3))
    mask = jnp.asarray(_MASK[:, None, None, :])
    scores = jnp.asarray(rng.normal(size=(4, 3, 5, 5)), jnp.float32)
    own = compute_masked_softmax(scores, mask)
    constant = compute_constant_probabilities(constants, mask)

    @jax.jit
    def mix(gates_H):
        return mix_attention(gates_H, constants)(scores, mask)

    # 40 and -40 are gates before their sigmoid that no training reaches.
    for gates in ([1.0, 0.25, 0.0], jax.nn.sigmoid(jnp.array([40.0, -1.0, -40.0]))):
        g = jnp.asarray(gates)[None, :, None, None]
        np.testing.assert_allclose(
            mix(jnp.asarray(gates)), g * own + (1 - g) * constant, atol=3e-7
        )
    # Sets of heads are a batch axis.
    sets = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    both = jax.vmap(mix)(sets)
    for i in range(2):
        np.testing.assert_allclose(both[i], mix(sets[i]), atol=3e-7)
