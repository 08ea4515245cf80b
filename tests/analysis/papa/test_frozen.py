"""The frozen encoder: the paper's equivalences, in every family."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from papa_models import LENGTH, load_frozen, make_random_constants, make_rows
from tiny_configs import TINY_CONFIGS

from sweet_jax.analysis.papa.constants import AttentionPass
from sweet_jax.analysis.papa.frozen import make_attention

FAMILIES = [
    "bert",
    *(pytest.param(f, marks=pytest.mark.slow) for f in TINY_CONFIGS if f != "bert"),
]
NONE, ALL = jnp.zeros((4, 2)), jnp.ones((4, 2))


@pytest.mark.parametrize("family", FAMILIES)
def test_constants_of_one_row_give_that_row_its_own_states(family, make_tiny_encoder):
    frozen, rows = load_frozen(make_tiny_encoder(family)), make_rows(1)
    sums = AttentionPass(frozen, 1).run(rows, np.arange(1), lambda _: None)
    batch, weights = rows.take(np.arange(1), 1), frozen.weights
    constants = jnp.asarray(sums.average())
    own = frozen.compute_states(weights, batch)
    constant = frozen.compute_states(weights, batch, make_attention(NONE, constants))
    real = rows.mask[0] == 1
    assert 0 < real.sum() < LENGTH
    np.testing.assert_allclose(own[0][:, real], constant[0][:, real], atol=1e-5)


def test_dynamic_heads_alone_are_the_encoder_bit_for_bit(tiny_encoder):
    frozen, rows = load_frozen(tiny_encoder), make_rows(3)
    batch, weights = rows.take(np.arange(3), 3), frozen.weights
    constants = jnp.asarray(make_random_constants())
    own = frozen.compute_states(weights, batch)
    for gates in (ALL, jax.nn.sigmoid(40 * ALL)):
        states = frozen.compute_states(weights, batch, make_attention(gates, constants))
        np.testing.assert_array_equal(own, states)
    constant, closed = (
        frozen.compute_states(weights, batch, make_attention(gates, constants))
        for gates in (NONE, jax.nn.sigmoid(-40 * ALL))
    )
    np.testing.assert_allclose(constant, closed, atol=1e-6)
    assert np.abs(own - constant).max() > 0.1


@pytest.mark.slow
def test_constant_heads_read_no_queries_and_keys(tiny_encoder):
    frozen, rows = load_frozen(tiny_encoder), make_rows(2)
    batch = rows.take(np.arange(2), 2)
    constants = jnp.asarray(make_random_constants())

    def compute_sum(params):
        attention = make_attention(NONE, constants)
        weights = {"encoder": params, "norm": None}
        return (frozen.compute_states(weights, batch, attention) ** 2).sum()

    gradient = jax.grad(compute_sum)(frozen.params)
    for i in range(4):
        attention = gradient[f"layer_{i}"]["attention"]
        assert not any(np.any(x) for x in jax.tree.leaves(attention["query"]))
        assert not any(np.any(x) for x in jax.tree.leaves(attention["key"]))
        assert np.any(attention["value"]["kernel"])


def test_a_layer_of_constant_heads_is_affine_in_its_input(tiny_encoder):
    frozen, rows = load_frozen(tiny_encoder), make_rows(1)
    mask = jnp.asarray(rows.mask)[:, None, None, :] != 0
    constants = jnp.asarray(make_random_constants())
    attention_class = frozen.encoder.layer_class(
        frozen.encoder.config
    ).get_attention_class()
    [attend] = make_attention(NONE[:1], constants[:1])
    block = attention_class(
        num_heads=2,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        norm_epsilon=1e-12,
        init_std=0.2,
        attention_fn=attend,
    )
    params = frozen.params["layer_0"]["attention"]

    def compute(x):  # Before the residual and the norm.
        _, seen = block.apply(
            {"params": params},
            jnp.asarray(x),
            mask,
            False,
            capture_intermediates=lambda module, _: module.name == "output",
        )
        return seen["intermediates"]["output"]["__call__"][0]

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1, LENGTH, 16)).astype(np.float32)
    zero = compute(0 * x)
    np.testing.assert_allclose(
        compute(x + y) - zero, compute(x) - zero + compute(y) - zero, atol=1e-4
    )


@pytest.mark.slow
def test_the_last_state_of_a_pre_norm_encoder_is_normed(make_tiny_encoder):
    frozen, rows = load_frozen(make_tiny_encoder("modernbert")), make_rows(2)
    states = frozen.compute_states(frozen.weights, rows.take(np.arange(2), 2))
    assert states.shape == (2, 5, LENGTH, 16)
    scaled = dataclasses.replace(frozen, final_norm={"scale": np.full(16, 3.0)})
    again = scaled.compute_states(scaled.weights, rows.take(np.arange(2), 2))
    expected = np.asarray(states[:, -1]) * 3 / np.asarray(frozen.final_norm["scale"])
    np.testing.assert_allclose(again[:, -1], expected, rtol=1e-4)
    np.testing.assert_array_equal(again[:, :-1], states[:, :-1])


def test_dropout_is_on_only_with_a_key(tiny_encoder):
    frozen, rows = load_frozen(tiny_encoder), make_rows(1)
    batch = rows.take(np.arange(1), 1)
    own = frozen.compute_states(frozen.weights, batch)
    dropped = frozen.compute_states(frozen.weights, batch, None, jax.random.key(0))
    assert np.abs(own - dropped).max() > 0.1
