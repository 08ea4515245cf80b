"""Parts that families share: they compute what the parts of jax compute."""

import jax.numpy as jnp
import numpy as np
import pytest
from onnx_values import compute

from sweet_jax.models.exit_heads import pool_states
from sweet_jax.models.layers import ACTIVATIONS
from sweet_jax.onnx_graphs import layers
from sweet_jax.onnx_graphs.graph import Graph


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = np.linspace(-6, 6, 25, dtype=np.float32)
    graph = Graph({})
    found = compute(graph, layers.add_activation(graph, "x", name), x=x)
    np.testing.assert_allclose(found, ACTIVATIONS[name](jnp.asarray(x)), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_reads_real_tokens_alone(rng, pooling):
    x = rng.normal(size=(3, 4, 5)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], np.int32)
    graph = Graph({})
    found = compute(graph, layers.add_pool(graph, "x", "mask", pooling), x=x, mask=mask)
    np.testing.assert_allclose(found, pool_states(x, mask, pooling), atol=1e-6)


def test_kernels_are_rounded_by_at_most_half_a_step_per_output(rng):
    kernel = rng.normal(size=(64, 5)).astype(np.float32) * [1, 100, 1e-4, 0, 1]
    values, scales = layers.quantize_kernel(kernel.astype(np.float32))
    assert values.dtype == np.int8
    assert (np.abs(values).max(axis=0) == [127, 127, 127, 0, 127]).all()
    assert (np.abs(values * scales - kernel) <= scales * 0.501).all()


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.0, 3.0), (0.5, 2.0), (-7.0, -0.1), (0.0, 0.0), (-1e-9, 1e9)],
)
def test_ranges_are_rounded_by_at_most_half_a_step_and_zero_stays_zero(low, high):
    scale, zero = layers.quantize_range(low, high)
    x = np.linspace(low, high, 999)
    steps = np.clip(np.rint(x / scale) + float(zero), 0, 255)
    # The zero is a whole number, which may cost another half at one end.
    assert (np.abs((steps - float(zero)) * scale - x) <= scale * 1.001).all()
    assert zero.dtype == np.uint8


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_dense_layers_of_one_input(rng, precision):
    params = {
        f"{name}/{part}": rng.normal(size=shape).astype(np.float32)
        for name in ("a", "b")
        for part, shape in (("kernel", (32, 6)), ("bias", (6,)))
    }
    del params["b/bias"]
    x = rng.normal(size=(2, 3, 32)).astype(np.float32)
    ranges = {"a": (float(x.min()), float(x.max()))} if precision == "int8" else None
    graph = Graph(params, ranges)
    a, b = layers.add_dense(graph, "x", "a", "b", scale=0.5)
    found = compute(graph, graph.add("Concat", a, b, axis=-1), x=x)
    first = (x @ params["a/kernel"] + params["a/bias"]) / 2
    exact = np.concatenate([first, x @ params["b/kernel"]], axis=-1)
    most = 1e-5 if precision == "float32" else 0.3
    assert np.abs(found - exact).max() < most
    if precision == "int8":
        assert np.abs(found - exact).max() > 1e-4


def test_attention_reads_readable_keys(rng):
    query, key, value = rng.normal(size=(3, 2, 5, 8)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    graph = Graph({})
    scores = layers.add_scores(graph, "query", "key", 2)
    scores = graph.add("Add", scores, layers.add_mask_bias(graph, "mask"))
    context = layers.join_heads(graph, layers.add_context(graph, scores, "value", 2))
    found = compute(graph, context, query=query, key=key, value=value, mask=mask)
    q, k, v = (x.reshape(2, 5, 2, 4).swapaxes(1, 2) for x in (query, key, value))
    odds = np.exp(q @ k.swapaxes(2, 3)) * mask[:, None, None]
    p = odds / odds.sum(axis=-1, keepdims=True)
    expected = (p @ v).swapaxes(1, 2).reshape(2, 5, 8)
    np.testing.assert_allclose(found, expected, atol=1e-5)
