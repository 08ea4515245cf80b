"""The parts encoders share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from sweet_jax.models.layers import ACTIVATIONS, Dropout, make_norm

_X = np.linspace(-12, 12, 4001, dtype=np.float32)


def test_gelu_is_the_exact_one():
    want = 0.5 * _X.astype(np.float64) * (1 + erf(_X.astype(np.float64) / np.sqrt(2)))
    np.testing.assert_allclose(ACTIVATIONS["gelu"](jnp.asarray(_X)), want, atol=2e-6)


@pytest.mark.parametrize("name", ["gelu_new", "gelu_pytorch_tanh"])
def test_tanh_gelu_is_the_approximation(name):
    x = _X.astype(np.float64)
    want = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    got = ACTIVATIONS[name](jnp.asarray(_X))
    np.testing.assert_allclose(got, want, atol=2e-6)
    # It must not be the exact one under another name.
    assert np.abs(got - ACTIVATIONS["gelu"](jnp.asarray(_X))).max() > 1e-4


@pytest.mark.reference
@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_are_those_of_transformers(name):
    import torch
    from transformers.activations import ACT2FN

    want = ACT2FN[name](torch.from_numpy(_X)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(_X)), want, atol=2e-6)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _drop(rate: float, x: jax.Array, seed: int = 0, train: bool = True):
    keys = {"dropout": jax.random.key(seed)}
    return Dropout(rate).apply({}, x, train, rngs=keys)


@pytest.mark.parametrize(("rate", "size"), [(0.1, 64), (0.5, 1), (0.9, 7)])
def test_dropout_keeps_the_expectation(rate, size):
    rows = 200_000 // size
    x = jnp.ones((rows, size))
    y = np.asarray(_drop(rate, x))
    # Five standard errors of a Bernoulli mean.
    slack = 5 * np.sqrt(rate * (1 - rate) / y.size)
    assert abs((y == 0).mean() - rate) < slack
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-4)


def test_dropout_draws_entries_independently():
    dropped = np.asarray(_drop(0.5, jnp.ones((100_000, 6)))) == 0
    correlation = np.corrcoef(dropped.T)
    # Neighbours share one 32-bit draw: the halves must not know of each other.
    assert np.abs(correlation - np.eye(6)).max() < 0.02


def test_dropout_follows_its_key_and_is_off_in_evaluation():
    x = jnp.ones((4, 5, 9))
    np.testing.assert_array_equal(_drop(0.3, x), _drop(0.3, x))
    assert (_drop(0.3, x) != _drop(0.3, x, 1)).any()
    np.testing.assert_array_equal(_drop(0.3, x, 0, False), x)
    np.testing.assert_array_equal(_drop(0.0, x), x)


def test_norm_statistics_are_float32_under_bfloat16():
    # In bfloat16 the mean of these would be off by whole units.
    x = jnp.asarray(np.linspace(1000, 1001, 64, dtype=np.float32)[None])
    norm = make_norm(1e-12, jnp.bfloat16, "norm")
    variables = norm.init(jax.random.key(0), x)
    y = norm.apply(variables, x)
    assert isinstance(y, jax.Array)
    assert y.dtype == jnp.bfloat16
    assert abs(float(y.astype(jnp.float32).std()) - 1) < 0.02
