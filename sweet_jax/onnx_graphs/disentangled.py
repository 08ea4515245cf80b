"""DeBERTa and DeBERTa-v2 as ONNX nodes; see `models.disentangled`.

The distance table and its projections have constant inputs, so they are computed when
the graph is built.
"""

from typing import Any

import numpy as np

from sweet_jax.models.deberta_v2 import DebertaV2Config
from sweet_jax.models.disentangled import NUM_TERMS, find_rows
from sweet_jax.onnx_graphs.graph import Graph
from sweet_jax.onnx_graphs.layers import (
    add_activation,
    add_context,
    add_heads,
    add_length,
    add_mask_bias,
    add_norm,
    add_products,
    add_scores,
)
from sweet_jax.onnx_graphs.post_norm import add_blocks


def add_tables(graph: Graph, config: Any, path: str) -> tuple[str, str, str, str]:
    """Returns the bias of masks, the path of the table, and two lists of distances.

    The lists are the rows that the distances key - query and query - key read, int64
    [S], for increasing distances.
    """
    longest = config.max_positions
    _, place_S = _find_places(config)
    length = add_length(graph, "mask")
    end = graph.make_constant(np.array([longest], np.int64))
    start = graph.add("Sub", end, length)
    stop = graph.add("Sub", graph.add("Add", end, length), graph.make_axes(1))
    c2p, p2c = (
        graph.add("Slice", graph.make_constant(place, name), start, stop)
        for place, name in ((place_S[::-1], "places_c2p"), (place_S, "places_p2c"))
    )
    return add_mask_bias(graph, "mask"), path, c2p, p2c


def add_layer(
    graph: Graph,
    config: Any,
    path: str,
    x: str,
    mask_bias: str,
    table: str,
    c2p: str,
    p2c: str,
    *,
    convolved: bool = False,
) -> str:
    """Returns the output of a layer, [B, L, D]; see `add_tables` for the arguments."""
    heads, attention = config.num_heads, f"{path}/attention"
    scale = np.float32((NUM_TERMS * (config.hidden_size // heads)) ** -0.5)
    weights = _split_weights(graph, config, attention)
    rows_RD = _compute_rows(graph, config, table)
    products = []
    for name in ("query", "key", "value"):
        kernel, bias = weights[name]
        if name == "query":
            kernel, bias = kernel * scale, None if bias is None else bias * scale
        products.append((f"{attention}/{name}", kernel, bias))
    query, key, value = add_products(graph, x, products)

    def project(name: str, scale: Any) -> str:
        """Returns the projected rows of the table, constant [H, K, R]."""
        kernel, bias = weights[name]
        rows = rows_RD @ kernel + (0 if bias is None else bias)
        split_RHK = (rows * scale).reshape(len(rows), heads, -1)
        return graph.make_constant(split_RHK.transpose(1, 2, 0), f"{attention}/{name}")

    def add_term(x: str, rows: str, places: str) -> str:
        """Returns the terms of x and the rows of all distances, [B, H, L, L]."""
        by_distance = graph.add("Gather", rows, places, axis=2)
        split = add_heads(graph, x, heads, 0, 2, 1, 3)
        return add_spread(graph, graph.add("MatMul", split, by_distance))

    one = np.float32(1)
    terms = [
        add_scores(graph, query, key, heads),
        add_term(query, project("position_key", one), c2p),
        graph.add(
            "Transpose",
            add_term(key, project("position_query", scale), p2c),
            perm=[0, 1, 3, 2],
        ),
        mask_bias,
    ]
    # One after the other: Sum, of many inputs, is slow where shapes differ.
    scores = terms[0]
    for term in terms[1:]:
        scores = graph.add("Add", scores, term)
    context = add_context(graph, scores, value, heads)
    y = add_blocks(graph, config, path, x, context)
    return _add_convolution(graph, config, path, x, y) if convolved else y


def _find_places(config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the table's rows that occur, and the index in them per distance."""
    distances = np.arange(1 - config.max_positions, config.max_positions)
    return find_rows(config.compute_buckets(distances), config.span)


def _compute_rows(graph: Graph, config: Any, path: str) -> np.ndarray:
    """Returns the rows of the distance table that occur, normed, float32 [R, D]."""
    rows_R, _ = _find_places(config)
    rows_RD = np.asarray(graph.params[f"{path}/distance/embedding"])[rows_R]
    if config.has_distance_norm:
        centred = rows_RD - rows_RD.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(config.norm_epsilon))
        norm = f"{path}/norm"
        rows_RD = scaled * graph.params[f"{norm}/scale"] + graph.params[f"{norm}/bias"]
    return rows_RD


def _split_weights(
    graph: Graph, config: Any, path: str
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Returns kernel and bias of each projection."""
    params = graph.params

    def get(name: str) -> tuple[np.ndarray, np.ndarray | None]:
        bias = params.get(f"{path}/{name}/bias")
        return np.asarray(params[f"{path}/{name}/kernel"]), bias

    if not isinstance(config, DebertaV2Config):
        packed = np.asarray(params[f"{path}/query_key_value/kernel"])
        # Packed within each head: first its query, then its key, then its value.
        split = packed.reshape(len(packed), config.num_heads, 3, -1)
        query, key, value = (split[:, :, i].reshape(len(packed), -1) for i in range(3))
        return {
            "query": (query, params[f"{path}/query_bias"]),
            "key": (key, None),
            "value": (value, params[f"{path}/value_bias"]),
            "position_query": get("position_query"),
            "position_key": get("position_key"),
        }
    parts = {name: get(name) for name in ("query", "key", "value")}
    for name in ("query", "key"):
        shared = config.share_att_key
        parts[f"position_{name}"] = parts[name] if shared else get(f"position_{name}")
    return parts


def add_spread(graph: Graph, terms: str) -> str:
    """Returns spread[..., i, j] = terms[..., i, j - i + L - 1], [B, H, L, L]."""
    # See `models.disentangled.spread_distances`: with one padded column, reshaping to
    # rows of S = 2L - 1 entries, from entry L - 1 on, aligns j.
    length = graph.add("Shape", terms, start=2, end=3)
    one = graph.make_axes(1)
    last = graph.add("Sub", length, one)
    width = graph.add("Add", length, last)
    padded = graph.add("Pad", terms, graph.make_axes(0, 0, 0, 0, 0, 0, 0, 1))
    flat = graph.add("Reshape", padded, graph.make_axes(0, 0, -1))
    stop = graph.add("Add", last, graph.add("Mul", length, width))
    axis = graph.make_axes(2)
    kept = graph.add("Slice", flat, last, stop, axis)
    shape = graph.add("Concat", graph.make_axes(0, 0), length, width, axis=0)
    rows = graph.add("Reshape", kept, shape)
    return graph.add("Slice", rows, graph.make_axes(0), length, graph.make_axes(3))


def _add_convolution(graph: Graph, config: Any, path: str, x: str, y: str) -> str:
    """Returns norm(y + act(conv(x))), where x is zero at padding."""
    path = f"{path}/convolution"
    real = graph.add("Unsqueeze", "mask", graph.make_axes(2))
    real = graph.add("Mul", x, graph.add("Cast", real, to=1))
    kernel = np.asarray(graph.params[f"{path}/conv/kernel"]).transpose(2, 1, 0)
    size = config.conv_kernel_size
    conv = graph.add(
        "Conv",
        graph.add("Transpose", real, perm=[0, 2, 1]),
        graph.make_constant(kernel, f"{path}/conv/kernel"),
        graph.get_weight(f"{path}/conv/bias"),
        # As flax's SAME: an even window reaches further after the token.
        pads=[(size - 1) // 2, size // 2],
    )
    out = graph.add("Transpose", conv, perm=[0, 2, 1])
    out = add_activation(graph, out, config.conv_act)
    return add_norm(
        graph, graph.add("Add", y, out), f"{path}/norm", config.norm_epsilon
    )
