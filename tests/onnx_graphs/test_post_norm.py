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
    mask[0, 30:] = 0
    (bias,) = add_position_bias(graph, config, "t")
    found = compute(graph, bias, mask=mask)
    places = np.arange(35)
    buckets = compute_buckets((places[None] - places[:, None]).ravel())
    expected = table[buckets].reshape(35, 35, 3).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(found[1:], expected, rtol=1e-6)
    np.testing.assert_allclose(found[:1, ..., :30], expected[..., :30], rtol=1e-6)
    # Whatever the distances, padding is 40 below the first token.
    assert (found[0, ..., 30:].max(axis=-1) <= found[0, ..., 0] - 40).all()
    # And no further than needed: probabilities stay normal numbers.
    assert (found[0, ..., 30:] >= found[0, ..., :1] - 40 - 2 * np.ptp(table)).all()


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
    mask = np.ones((2, 5), np.int32)
    mask[1, 3:] = 0
    graph = Graph(params)
    found = compute(
        graph,
        add_embeddings(graph, config, "e", "ids", "types"),
        ids=ids,
        types=kinds,
        mask=mask,
    )
    places = np.tile(np.arange(5), (2, 1))
    for x in (ids, kinds, places):  # Padding repeats the first token.
        x[1, 3:] = x[1, 0]
    total = params["e/word/embedding"][ids] + params["e/position/embedding"][2 + places]
    if num_types:
        total = total + params["e/type/embedding"][kinds if num_types == 2 else 0 * ids]
    centred = total - total.mean(axis=-1, keepdims=True)
    expected = 0.5 * centred / total.std(axis=-1, keepdims=True) + 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)
