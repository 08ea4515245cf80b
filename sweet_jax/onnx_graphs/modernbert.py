"""ModernBERT as ONNX nodes; see `models.modernbert`."""

from typing import Any

import numpy as np

from sweet_jax.models.modernbert import LOCAL
from sweet_jax.models.rotary import compute_frequencies
from sweet_jax.onnx_graphs.graph import Graph
from sweet_jax.onnx_graphs.layers import (
    add_activation,
    add_bias_where,
    add_context,
    add_dense,
    add_distances,
    add_length,
    add_mask_bias,
    add_norm,
    add_products,
    join_heads,
)


def add_embeddings(graph: Graph, config: Any, path: str, ids: str, types: str) -> str:
    """Returns normed word embeddings, [B, L, D]; type ids are unused."""
    del types
    x = graph.add("Gather", graph.get_weight(f"{path}/word/embedding"), ids)
    return add_norm(graph, x, f"{path}/norm", config.norm_epsilon)


def add_biases(graph: Graph, config: Any, path: str) -> tuple[str, str]:
    """Returns the biases of scores in global and in local layers."""
    del path  # The layers share no table.
    mask_bias = add_mask_bias(graph, "mask")
    distances = graph.add("Abs", add_distances(graph, add_length(graph, "mask")))
    reach = graph.make_constant(np.int64(config.local_attention // 2))
    window = add_bias_where(graph, graph.add("LessOrEqual", distances, reach))
    # The sum of two finfo.min would be -inf, and softmax of a whole row of them NaN.
    return mask_bias, graph.add("Min", mask_bias, window)


def add_layer(
    graph: Graph,
    config: Any,
    path: str,
    x: str,
    global_bias: str,
    local_bias: str,
    *,
    layer_type: str,
    is_first: bool,
) -> str:
    """Returns the output of a layer, [B, L, D].

    Args:
        graph: the graph.
        config: config of the encoder.
        path: path of the layer.
        x: [B, L, D].
        global_bias: added to the scores of a global layer, [B, 1, 1, L].
        local_bias: added to the scores of a local layer, [B, 1, L, L].
        layer_type: `GLOBAL` or `LOCAL`.
        is_first: whether the attention has no norm.
    """
    attention, feed_forward = f"{path}/attention", f"{path}/feed_forward"
    is_local, heads = layer_type == LOCAL, config.num_heads
    theta = config.local_theta if is_local else config.global_theta
    normed = x
    if not is_first:
        normed = add_norm(graph, x, f"{attention}/norm", config.norm_epsilon)
    query, key, value = add_parts(graph, normed, attention, config)
    scores = graph.add(
        "MatMul",
        add_rotated(graph, query, config, theta),
        # Rotated as queries are, then transposed for the product.
        graph.add(
            "Transpose", add_rotated(graph, key, config, theta), perm=[0, 1, 3, 2]
        ),
    )
    scores = graph.add("Add", scores, local_bias if is_local else global_bias)
    context = add_context(graph, scores, value, heads)
    (out,) = add_dense(graph, context, f"{attention}/output", arrange=join_heads)
    x = graph.add("Add", x, out)
    normed = add_norm(graph, x, f"{feed_forward}/norm", config.norm_epsilon)
    kernel = graph.params[f"{feed_forward}/up/kernel"]
    names = [f"{feed_forward}/up/{name}" for name in ("hidden", "gate")]
    halves = np.split(kernel, 2, axis=1)
    hidden, gate = add_products(
        graph, normed, [(n, k, None) for n, k in zip(names, halves, strict=True)]
    )
    hidden = add_activation(graph, hidden, config.hidden_act)
    (out,) = add_dense(graph, graph.add("Mul", hidden, gate), f"{feed_forward}/down")
    return graph.add("Add", x, out)


def add_parts(graph: Graph, x: str, path: str, config: Any) -> list[str]:
    """Returns scaled queries, keys and values, of a kernel that has all three."""
    parts = np.split(graph.params[f"{path}/qkv/kernel"], 3, axis=1)
    # Scaled before the rotation, which is linear.
    parts[0] = parts[0] * np.float32((config.hidden_size // config.num_heads) ** -0.5)
    names = (f"{path}/{name}" for name in ("query", "key", "value"))
    return add_products(
        graph, x, [(n, k, None) for n, k in zip(names, parts, strict=True)]
    )


def add_rotated(graph: Graph, x: str, config: Any, theta: float) -> str:
    """Returns x [B, L, D] in heads, each rotated by its position, [B, H, L, K]."""
    size = config.hidden_size // config.num_heads
    positions = np.arange(config.max_positions, dtype=np.float32)[:, None]
    angles = positions * compute_frequencies(theta, size)[None, :]
    end = add_length(graph, "mask")
    split = graph.add("Reshape", x, graph.make_axes(0, 0, config.num_heads, -1))
    heads = graph.add("Transpose", split, perm=[0, 2, 1, 3])
    first, second = graph.add_many("Split", 2, heads, axis=-1, num_outputs=2)
    swapped = graph.add("Concat", graph.add("Neg", second), first, axis=-1)
    cos, sin = (
        graph.add(
            "Slice",
            graph.make_constant(
                np.tile(fn(angles), 2), f"rotary/{theta}/{fn.__name__}"
            ),
            graph.make_axes(0),
            end,
        )
        for fn in (np.cos, np.sin)
    )
    return graph.add(
        "Add", graph.add("Mul", heads, cos), graph.add("Mul", swapped, sin)
    )
