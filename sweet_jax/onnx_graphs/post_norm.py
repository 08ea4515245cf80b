"""BERT, RoBERTa and MPNet as ONNX nodes; see `models.post_norm`, `models.mpnet`.

Padding repeats the first token, position included, so that its score is that of a key
which is read. A bias of `MASKED` is then enough to make its probability less than
float32 can add, and keeps it a normal number. With the lowest float as bias, ONNX
Runtime's softmax gives denormal numbers, which slow it and the product after it: int8
segments took 1.08 times the time.
"""

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
    add_mask_bias,
    add_norm,
    add_range,
    add_scores,
    join_heads,
)

# exp(-40) is 4e-18, where float32 has a precision of 6e-8.
MASKED = np.float32(-40)


def add_embeddings(graph: Graph, config: Any, path: str, ids: str, types: str) -> str:
    """Returns the sum of word, type and position embeddings, normed, [B, L, D]."""
    real = graph.add("Cast", "mask", to=9)
    first = graph.make_axes(0)

    def repeat_first(values: str) -> str:
        """Returns values [B, L], with that of the first token at padding."""
        at_first = graph.add("Gather", values, first, axis=1)
        return graph.add("Where", real, values, at_first)

    ids, types = repeat_first(ids), repeat_first(types)
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
        places = graph.add(
            "Where", real, add_range(graph, add_length(graph, ids)), first
        )
        x = graph.add("Add", x, graph.add("Gather", table, places))
    return add_norm(graph, x, f"{path}/norm", config.norm_epsilon)


def add_bias(graph: Graph, config: Any, path: str) -> tuple[str]:
    """Returns the bias of the scores in BERT and RoBERTa: the mask, [B, 1, 1, L]."""
    del config, path  # The layers share no table.
    return (add_mask_bias(graph, "mask", MASKED),)


def add_position_bias(graph: Graph, config: Any, path: str) -> tuple[str]:
    """Returns the bias of the scores in MPNet: mask and distances, [B, H, L, L]."""
    longest = config.max_positions
    buckets = compute_buckets(np.arange(1 - longest, longest))
    by_distance_HS = graph.params[f"{path}/position_bias/embedding"][buckets].T
    table = graph.make_constant(by_distance_HS, f"{path}/position_bias/by_distance")
    distances = add_distances(graph, add_length(graph, "mask"))
    first = graph.make_constant(np.int64(longest - 1))
    bias_HLM = graph.add("Gather", table, graph.add("Add", distances, first), axis=1)
    # Padding may be at a distance with a higher bias than the first token's.
    spread = np.ptp(by_distance_HS, axis=1).max()
    mask_bias = add_mask_bias(graph, "mask", np.float32(MASKED - spread))
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
    """Returns the layer's output, given the context of its attention, in heads."""
    attention, feed_forward = f"{path}/attention", f"{path}/feed_forward"

    def add_residual(x: str, out: str, block: str) -> str:
        total = graph.add("Add", x, out)
        return add_norm(graph, total, f"{block}/norm", config.norm_epsilon)

    (out,) = add_dense(graph, context, f"{attention}/output", arrange=join_heads)
    x = add_residual(x, out, attention)
    (hidden,) = add_dense(graph, x, f"{feed_forward}/up")
    hidden = add_activation(graph, hidden, config.hidden_act)
    (out,) = add_dense(graph, hidden, f"{feed_forward}/down")
    return add_residual(x, out, feed_forward)
