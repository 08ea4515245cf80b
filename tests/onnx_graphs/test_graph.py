"""A graph under construction: one constant per value, and counted products."""

import numpy as np
from onnx_values import compute

from sweet_jax.onnx_graphs.graph import Graph


def test_equal_constants_are_one_and_of_their_own_type_and_rank():
    graph = Graph({"w": np.ones((2, 3), np.float32)})
    assert graph.make_axes(1, 2) == graph.make_axes(1, 2)
    names = {
        graph.make_constant(np.int64(1)),
        graph.make_axes(1),
        graph.make_constant(np.float32(1)),
    }
    assert len(names) == 3
    assert graph.get_weight("w") == graph.get_weight("w") == "w"
    model = graph.make_model({}, {}, {"precision": "int8"})
    assert [tuple(x.dims) for x in model.graph.initializer] == [
        (2,),
        (),
        (1,),
        (),
        (2, 3),
    ]
    assert [(x.key, x.value) for x in model.metadata_props] == [("precision", "int8")]


def test_products_with_weights_and_of_attention_are_counted():
    graph = Graph({"k": np.ones((3, 5), np.float32)})
    product = graph.add("MatMul", "x", graph.get_weight("k"))
    scores = graph.add("MatMul", product, product)
    pooled = graph.add("Gemm", graph.add("Softmax", scores), "k", "b")
    assert pooled.startswith("Gemm")
    counts = {"per_row": "15", "per_token": "15", "per_pair": "14"}
    assert graph.count_products(7) == counts


def test_values_are_computed():
    graph = Graph({"k": np.full((2, 2), 2, np.float32)})
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = compute(graph, graph.add("MatMul", "x", graph.get_weight("k")), x=x)
    np.testing.assert_array_equal(found, x @ graph.params["k"])
