"""DeBERTa's terms as nodes: spread from distances to pairs, for every length."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from onnx_values import compute

from sweet_jax.models.disentangled import spread_distances
from sweet_jax.onnx_graphs.disentangled import add_spread, add_tables
from sweet_jax.onnx_graphs.graph import Graph


@pytest.mark.parametrize("length", [1, 2, 7])
def test_terms_are_spread_as_in_jax(rng, length):
    terms = rng.normal(size=(2, 3, length, 2 * length - 1)).astype(np.float32)
    graph = Graph({})
    found = compute(graph, add_spread(graph, "terms"), terms=terms)
    np.testing.assert_array_equal(found, spread_distances(jnp.asarray(terms)))


def test_distances_read_the_rows_of_their_length():
    config = types.SimpleNamespace(max_positions=6, span=3, compute_buckets=lambda d: d)
    mask = np.ones((1, 4), np.int32)
    # Query minus key from -3 to 3; from 2 on, the outermost row.
    rows = [0, 1, 2, 3, 4, 5, 5]
    for number, expected in ((2, rows[::-1]), (3, rows)):
        graph = Graph({})
        places = add_tables(graph, config, "table")[number]
        found = compute(graph, graph.add("Cast", places, to=1), mask=mask)
        np.testing.assert_array_equal(found, expected)
