"""BERT, RoBERTa and MPNet as ONNX nodes; see `models.post_norm`, `models.mpnet`."""

from typing import Any

import numpy as np

from sweet_jax.models.mpnet import compute_buckets
from sweet_jax.onnx_graphs.graph import Graph
from sweet_jax.onnx_graphs.layers import (
    add_activation,
    add_context,
    add_dense,
    add_distances,
    add_length,
    add_norm,
    add_scores,
)


def add_embeddings(graph: Graph, config: Any, path: str, ids: str, types: str) -> str:
    """Returns the sum of word, type and position embeddings, normed, [B, L, D]."""
    x = graph.add("Gather", graph.get_weight(f"{path}/word/embedding"), ids)
    if config.num_types == 1:
        # The tokenizer's type ids are ignored.
        x = graph.add("Add", x, graph.get_weight(f"{path}/type/embedding"))
    elif config.num_types:
        table = graph.get_weight(f"{path}/type/embedding")
        x = graph.add("Add", x, graph.add("Gather", table, types))
    if config.has_position_table:
        name = f"{path}/position/embedding"
        table = graph.make_constant(graph.params[name][config.position_offset :], name)
        end = add_length(graph, ids)
        rows = graph.add("Slice", table, graph.make_axes(0), end)
        x = graph.add("Add", x, rows)
    return add_norm(graph, x, f"{path}/norm", config.norm_epsilon)


def add_position_bias(
    graph: Graph, config: Any, path: str, mask_bias: str
) -> tuple[str]:
    """Returns the bias of the scores in MPNet: mask and distances, [B, H, L, L]."""
    longest = config.max_positions
    buckets = compute_buckets(np.arange(1 - longest, longest))
    by_distance_HS = graph.params[f"{path}/position_bias/embedding"][buckets].T
    table = graph.make_constant(by_distance_HS, f"{path}/position_bias/by_distance")
    distances = add_distances(graph, add_length(graph, "mask"))
    first = graph.make_constant(np.int64(longest - 1))
    bias_HLM = graph.add("Gather", table, graph.add("Add", distances, first), axis=1)
    return (graph.add("Add", mask_bias, bias_HLM),)


def add_layer(graph: Graph, config: Any, path: str, x: str, bias: str) -> str:
    """Returns the output of a post-norm layer, [B, L, D].

    Args:
        graph: the graph.
        config: config of the encoder.
        path: path of the layer.
        x: [B, L, D].
        bias: added to the scores, [B, 1 or H, 1 or L, L].
    """
    heads = config.num_heads
    query, key, value = add_dense(
        graph,
        x,
        *(f"{path}/attention/{name}" for name in ("query", "key", "value")),
        scale=(config.hidden_size // heads) ** -0.5,
    )
    scores = graph.add("Add", add_scores(graph, query, key, heads), bias)
    context = add_context(graph, scores, value, heads)
    return add_blocks(graph, config, path, x, context)


def add_blocks(graph: Graph, config: Any, path: str, x: str, context: str) -> str:
    """Returns the layer's output, given the context of its attention."""
    attention, feed_forward = f"{path}/attention", f"{path}/feed_forward"

    def add_output(x: str, inner: str, block: str, name: str) -> str:
        (out,) = add_dense(graph, inner, f"{block}/{name}")
        total = graph.add("Add", x, out)
        return add_norm(graph, total, f"{block}/norm", config.norm_epsilon)

    x = add_output(x, context, attention, "output")
    (hidden,) = add_dense(graph, x, f"{feed_forward}/up")
    hidden = add_activation(graph, hidden, config.hidden_act)
    return add_output(x, hidden, feed_forward, "down")
