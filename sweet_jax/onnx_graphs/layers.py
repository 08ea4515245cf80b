"""Parts that families share, as ONNX nodes: dense layers, norms, attention, pooling.

They compute what `models.layers`, `models.attention` and `models.exit_heads` compute.

The nodes are the standard ones, not ONNX Runtime's fused forms of attention, of a norm
after a sum and of GELU after a bias: those take more than twice their time on CPU
(MultiHeadAttention copies every head, SkipLayerNormalization uses no vector
instructions).
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sweet_jax.onnx_graphs.graph import Graph

# Not -inf: a row without any readable key becomes uniform, not NaN.
LOWEST = np.finfo(np.float32).min
# Activations of `models.layers.ACTIVATIONS` -> attribute `approximate` of Gelu.
_GELU = {
    "gelu": "none",
    "gelu_python": "none",
    "gelu_new": "tanh",
    "gelu_accurate": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
}


# Returns a value with its axes in another order, given the graph and the value.
Arrange: TypeAlias = Callable[[Graph, str], str]


def add_dense(
    graph: Graph,
    x: str,
    *paths: str,
    scale: float = 1.0,
    arrange: Arrange | None = None,
) -> list[str]:
    """Returns the outputs of dense layers that read the same x, in their order.

    Args:
        graph: the graph.
        x: [..., in], once it is arranged.
        *paths: paths of the layers; a bias is optional.
        scale: multiplies the output of the first layer, in its weights.
        arrange: see `add_products`.
    """
    products = []
    for i, path in enumerate(paths):
        kernel, bias = graph.params[f"{path}/kernel"], graph.params.get(f"{path}/bias")
        if i == 0 and scale != 1:
            kernel = kernel * np.float32(scale)
            bias = None if bias is None else bias * np.float32(scale)
        products.append((path, kernel, bias))
    return add_products(graph, x, products, arrange)


def add_products(
    graph: Graph,
    x: str,
    products: list[tuple[str, np.ndarray, np.ndarray | None]],
    arrange: Arrange | None = None,
) -> list[str]:
    """Returns x @ kernel + bias for each product, in 8 bits if the graph has ranges.

    In 8 bits, x is quantised once: asymmetric, with one constant scale, so that rows do
    not depend on each other. The products are exact integers, and the bias is added in
    float32.

    Args:
        graph: the graph.
        x: [..., in], once it is arranged.
        products: name of the layer, kernel [in, out], bias [out] or None.
        arrange: moves the axes of x. In 8 bits it moves a quarter of the bytes.
    """
    outputs = []
    first = products[0][0]
    scale = zero = ""
    if graph.ranges is not None:
        x_scale, x_zero = quantize_range(*graph.ranges[first])
        scale, zero = graph.make_constant(x_scale), graph.make_constant(x_zero)
        x = graph.add("QuantizeLinear", x, scale, zero)
    if arrange is not None:
        x = arrange(graph, x)
    graph.multiplied[first] = x
    for name, kernel, bias in products:
        given = [] if bias is None else [graph.make_constant(bias, f"{name}/bias")]
        if graph.ranges is not None:
            values, scales = quantize_kernel(kernel)
            outputs.append(
                graph.add(
                    "MatMulIntegerToFloat",
                    x,
                    graph.make_constant(values, f"{name}/kernel_int8"),
                    scale,
                    graph.make_constant(scales, f"{name}/kernel_scale"),
                    zero,
                    "",  # The zero of kernels is 0.
                    *given,
                )
            )
            continue
        weights = graph.make_constant(kernel, f"{name}/kernel")
        product = graph.add("MatMul", x, weights)
        outputs.append(graph.add("Add", product, given[0]) if given else product)
    return outputs


def quantize_range(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Returns the scale and the zero of 8 bits that reach from `low` to `high`.

    Zero is always a value, so the range is widened to contain it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    # An input of zeros stays zero.
    scale = (high - low) / 255 or 1.0
    return np.float32(scale), np.uint8(round(-low / scale))


def quantize_kernel(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int8 values [in, out] and one float32 scale per output, [out]."""
    scales = np.abs(kernel).max(axis=0) / np.float32(127)
    # A column of zeros stays zero.
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.rint(kernel / scales).astype(np.int8), scales


def add_norm(graph: Graph, x: str, path: str, epsilon: float) -> str:
    """Returns x with the layer norm at `path` applied over the last axis."""
    bias = f"{path}/bias"
    weights = [graph.get_weight(f"{path}/scale")]
    weights += [graph.get_weight(bias)] if bias in graph.params else []
    return graph.add("LayerNormalization", x, *weights, axis=-1, epsilon=epsilon)


def add_activation(graph: Graph, x: str, name: str) -> str:
    """Returns the activation of x, named as in `models.layers.ACTIVATIONS`."""
    if name in _GELU:
        return graph.add("Gelu", x, approximate=_GELU[name])
    if name in ("silu", "swish"):
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    return graph.add({"relu": "Relu", "tanh": "Tanh"}[name], x)


def add_pool(graph: Graph, x: str, mask: str, pooling: str) -> str:
    """Returns the CLS state, or the mean state over real tokens, [B, D]."""
    if pooling == "cls":
        return graph.add("Gather", x, graph.make_constant(np.int64(0)), axis=1)
    axis = graph.make_axes(1)
    # As a product with [B, 1, L]: one pass, and no masked copy of the states.
    real = graph.add("Cast", graph.add("Unsqueeze", mask, axis), to=1)
    total = graph.add("ReduceSum", real, graph.make_axes(2), keepdims=1)
    # A row without real tokens gives zeros, not NaN.
    count = graph.add("Max", total, graph.make_constant(np.float32(1)))
    mean = graph.add("MatMul", graph.add("Div", real, count), x)
    return graph.add("Squeeze", mean, axis)


def add_length(graph: Graph, x: str) -> str:
    """Returns the length of x, [B, L, ...], as a vector of one number."""
    return graph.add("Shape", x, start=1, end=2)


def add_range(graph: Graph, length: str) -> str:
    """Returns 0, ..., length - 1, int64 [L]."""
    zero, one = (graph.make_constant(np.int64(i)) for i in (0, 1))
    end = graph.add("Squeeze", length, graph.make_axes(0))
    return graph.add("Range", zero, end, one)


def add_distances(graph: Graph, length: str) -> str:
    """Returns key position - query position, int64 [L, L]."""
    positions = add_range(graph, length)
    return graph.add(
        "Sub", positions, graph.add("Unsqueeze", positions, graph.make_axes(1))
    )


def add_mask_bias(graph: Graph, mask: str, masked: np.float32 = LOWEST) -> str:
    """Returns a bias for scores: 0 where a key may be read, else `masked`.

    Args:
        graph: the graph.
        mask: int32 [B, L].
        masked: the bias of keys that may not be read.

    Returns:
        Float32 [B, 1, 1, L].
    """
    keys = graph.add("Unsqueeze", mask, graph.make_axes(1, 2))
    return add_bias_where(graph, graph.add("Cast", keys, to=9), masked)


def add_bias_where(graph: Graph, readable: str, masked: np.float32 = LOWEST) -> str:
    """Returns 0 where `readable` is true, else `masked`."""
    zero = graph.make_constant(np.float32(0))
    return graph.add("Where", readable, zero, graph.make_constant(masked))


def add_heads(graph: Graph, x: str, num_heads: int, *perm: int) -> str:
    """Returns x [B, L, D], split into heads [B, L, H, K] and transposed by `perm`."""
    # 0 keeps an axis, and the width follows from the number of heads.
    split = graph.add("Reshape", x, graph.make_axes(0, 0, num_heads, -1))
    return graph.add("Transpose", split, perm=list(perm))


def add_scores(graph: Graph, query: str, key: str, num_heads: int) -> str:
    """Returns the scores of two [B, L, D], [B, H, L, M]; queries are scaled already."""
    return graph.add(
        "MatMul",
        add_heads(graph, query, num_heads, 0, 2, 1, 3),
        add_heads(graph, key, num_heads, 0, 2, 3, 1),
    )


def add_context(graph: Graph, scores: str, value: str, num_heads: int) -> str:
    """Returns the values [B, M, D] averaged by softmax of the scores, [B, H, L, K]."""
    probabilities = graph.add("Softmax", scores, axis=-1)
    return graph.add(
        "MatMul", probabilities, add_heads(graph, value, num_heads, 0, 2, 1, 3)
    )


def join_heads(graph: Graph, x: str) -> str:
    """Returns x [B, H, L, K] with the heads beside each other, [B, L, D]."""
    x = graph.add("Transpose", x, perm=[0, 2, 1, 3])
    return graph.add("Reshape", x, graph.make_axes(0, 0, -1))
