"""ModernBERT's rotations and windows as nodes."""

import types

import jax.numpy as jnp
import numpy as np
from onnx_values import compute

from sweet_jax.models.rotary import rotate
from sweet_jax.onnx_graphs.graph import Graph
from sweet_jax.onnx_graphs.modernbert import add_biases, add_rotated

CONFIG = types.SimpleNamespace(
    hidden_size=12, num_heads=3, max_positions=50, local_attention=4
)
MASK = np.ones((2, 7), np.int32)


def test_heads_are_rotated_by_their_position(rng):
    x = rng.normal(size=(2, 7, 12)).astype(np.float32)
    graph = Graph({})
    found = compute(graph, add_rotated(graph, "x", CONFIG, 100.0), x=x, mask=MASK)
    expected = rotate(jnp.asarray(x).reshape(2, 7, 3, 4), 100.0).swapaxes(1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_local_layers_read_half_the_window_on_each_side():
    graph = Graph({})
    mask = MASK.copy()
    mask[0, 5:] = 0
    _, nearby = add_biases(graph, CONFIG, "")
    found = compute(graph, nearby, mask=mask)
    places = np.arange(7)
    near = np.abs(places[:, None] - places) <= 2
    np.testing.assert_array_equal(found == 0, near & (mask[:, None, None] == 1))
    assert np.isfinite(found).all()
