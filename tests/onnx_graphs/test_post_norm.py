"""MPNet's position bias as nodes: a table spread over pairs of positions."""

import types

import numpy as np
import pytest
from onnx_values import compute

from sweet_jax.models.mpnet import NUM_BUCKETS, compute_buckets
from sweet_jax.onnx_graphs.graph import Graph
from sweet_jax.onnx_graphs.post_norm import add_embeddings, add_position_bias


def test_bias_of_masks_and_distances(rng):
    table = rng.normal(size=(NUM_BUCKETS, 3)).astype(np.float32)
    graph = Graph({"t/position_bias/embedding": table})
    config = types.SimpleNamespace(max_positions=40)
    mask = np.ones((2, 35), np.int32)
    mask_bias = np.zeros((2, 1, 1, 35), np.float32)
    mask_bias[0, ..., 30:] = -1e30
    (bias,) = add_position_bias(graph, config, "t", "mask_bias")
    found = compute(graph, bias, mask=mask, mask_bias=mask_bias)
    places = np.arange(35)
    buckets = compute_buckets((places[None] - places[:, None]).ravel())
    expected = table[buckets].reshape(35, 35, 3).transpose(2, 0, 1)[None] + mask_bias
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("num_types", [0, 1, 2])
def test_embeddings_are_summed_from_the_first_position(rng, num_types):
    sizes = {"word": 9, "position": 8, "type": num_types}
    params = {
        f"e/{name}/embedding": rng.normal(size=(size, 4)).astype(np.float32)
        for name, size in sizes.items()
    }
    params |= {f"e/norm/{n}": np.full(4, 0.5, np.float32) for n in ("scale", "bias")}
    config = types.SimpleNamespace(
        num_types=num_types,
        has_position_table=True,
        position_offset=2,
        norm_epsilon=1e-12,
    )
    ids = rng.integers(0, 9, (2, 5)).astype(np.int32)
    kinds = rng.integers(0, 2, (2, 5)).astype(np.int32)
    graph = Graph(params)
    found = compute(
        graph, add_embeddings(graph, config, "e", "ids", "types"), ids=ids, types=kinds
    )
    total = params["e/word/embedding"][ids] + params["e/position/embedding"][2:7]
    if num_types:
        total = total + params["e/type/embedding"][kinds if num_types == 2 else 0 * ids]
    centred = total - total.mean(axis=-1, keepdims=True)
    expected = 0.5 * centred / total.std(axis=-1, keepdims=True) + 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)
