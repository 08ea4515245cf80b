"""Builds the ONNX models of all segments of a multi-exit model or a set of models.

Segment 0 of a multi-exit model reads `token_ids`, `type_ids` and `mask`; later ones
read the `state` that the segment before wrote, and `mask`. Every member of a set reads
tokens. Each writes `logits`, and `lte` if its exit learned to exit.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import onnx
from flax import linen as nn

from sweet_jax.arrays import Params
from sweet_jax.models.bert import BertEncoder
from sweet_jax.models.deberta import DebertaEncoder
from sweet_jax.models.deberta_v2 import DebertaV2Encoder
from sweet_jax.models.modernbert import ModernbertEncoder
from sweet_jax.models.mpnet import MpnetEncoder
from sweet_jax.models.multi_exit import MultiExitClassifier, MultiModelSet
from sweet_jax.onnx_graphs import disentangled, modernbert, post_norm
from sweet_jax.onnx_graphs.graph import Graph, Ranges, Spec
from sweet_jax.onnx_graphs.layers import (
    add_activation,
    add_norm,
    add_pool,
)
from sweet_jax.trees import flatten_paths

INPUT = "input of "
_BatchLength = ("rows", "length")


class FamilyGraph(NamedTuple):
    """How a family's parts become nodes.

    Attributes:
        add_embeddings: (graph, config, path, ids, types) -> state.
        add_layer: (graph, config, path, state, *shared, **described) -> state.
        add_shared: (graph, config, path of the shared tables) -> `shared`, what all
            layers of a segment read: the bias of the mask, and what the family adds.
    """

    add_embeddings: Callable[..., str]
    add_layer: Callable[..., str]
    add_shared: Callable[..., tuple[str, ...]]


FAMILIES: dict[type, FamilyGraph] = {
    BertEncoder: FamilyGraph(
        post_norm.add_embeddings, post_norm.add_layer, post_norm.add_bias
    ),
    MpnetEncoder: FamilyGraph(
        post_norm.add_embeddings, post_norm.add_layer, post_norm.add_position_bias
    ),
    ModernbertEncoder: FamilyGraph(
        modernbert.add_embeddings, modernbert.add_layer, modernbert.add_biases
    ),
    DebertaEncoder: FamilyGraph(
        post_norm.add_embeddings, disentangled.add_layer, disentangled.add_tables
    ),
    DebertaV2Encoder: FamilyGraph(
        post_norm.add_embeddings, disentangled.add_layer, disentangled.add_tables
    ),
}

ServedModel: TypeAlias = nn.Module


def make_segment_models(
    model: ServedModel,
    params: Params,
    ranges: Sequence[Ranges] | None = None,
    gives_inputs: bool = False,
) -> list[onnx.ModelProto]:
    """Returns one ONNX model per segment.

    Args:
        model: a MultiExitClassifier or a MultiModelSet.
        params: parameters of the model.
        ranges: of each segment, from `measure_ranges`: products are in int8. None: in
            float32.
        gives_inputs: whether the inputs of products are outputs as well, named by the
            products' paths after `INPUT`.

    Raises:
        ValueError: the family cannot be written as ONNX.
    """
    if isinstance(model, MultiModelSet):
        parts = [
            (member, params[f"member_{i}"], 0) for i, member in enumerate(model.member)
        ]
    else:
        assert isinstance(model, MultiExitClassifier)
        parts = [(model, params, i) for i in range(model.num_segments)]
    return [
        make_segment_model(*part, None if ranges is None else ranges[i], gives_inputs)
        for i, part in enumerate(parts)
    ]


def make_segment_model(
    model: MultiExitClassifier,
    params: Params,
    segment: int,
    ranges: Ranges | None,
    gives_inputs: bool,
) -> onnx.ModelProto:
    """Returns the ONNX model of one segment, embeddings and exit included."""
    encoder = model.encoder
    family = _find_family(encoder)
    graph = Graph(flatten_paths(params), ranges)
    state: Spec = ("float32", (*_BatchLength, model.features))
    inputs: dict[str, Spec] = {"mask": ("int32", _BatchLength)}
    if segment:
        inputs = {"state": state, **inputs}
        x = "state"
    else:
        tokens: Spec = ("int32", _BatchLength)
        inputs = {"token_ids": tokens, "type_ids": tokens, **inputs}
        x = family.add_embeddings(
            graph, encoder.config, "encoder/embeddings", "token_ids", "type_ids"
        )
    first = model.exit_layers[segment - 1] + 1 if segment else 0
    x = _add_layers(graph, family, encoder, x, first, model.exit_layers[segment] + 1)
    outputs: dict[str, Spec] = {}
    if segment < model.num_segments - 1:
        graph.name_output("state_after", x)
        outputs["state_after"] = state
    _add_exit(graph, model, segment, x)
    outputs["logits"] = ("float32", ("rows", model.num_classes))
    if model.settings.learn_to_exit:
        outputs["lte"] = ("float32", ("rows", 1))
    if gives_inputs:
        for path, value in graph.multiplied.items():
            graph.name_output(INPUT + path, value)
            outputs[INPUT + path] = ("float32", None)
    precision = "float32" if ranges is None else "int8"
    metadata = {"precision": precision, **graph.count_products(model.features)}
    return graph.make_model(inputs, outputs, metadata)


def _find_family(encoder: Any) -> FamilyGraph:
    """Returns how the encoder's family becomes nodes."""
    if (family := FAMILIES.get(type(encoder))) is None:
        raise ValueError(
            f"the family {encoder.config.family!r} cannot be written as ONNX: use"
            " backend=jax"
        )
    return family


def _add_layers(
    graph: Graph, family: FamilyGraph, encoder: Any, x: str, first: int, stop: int
) -> str:
    """Returns the state after layers first, ..., stop - 1."""
    # The copy of the shared tables that the layers read is the latest that began.
    number = sum(start <= first for start in encoder.table_starts) - 1
    shared = family.add_shared(graph, encoder.config, f"encoder/shared_{number}")
    for i in range(first, stop):
        path, described = f"encoder/layer_{i}", encoder.describe_layer(i)
        x = family.add_layer(graph, encoder.config, path, x, *shared, **described)
    return x


def _add_exit(graph: Graph, model: MultiExitClassifier, segment: int, x: str) -> None:
    """Adds the outputs of the exit on state x."""
    path = f"exits/exit_{model.exit_numbers[segment]}"
    config: Any = model.encoder.config
    if f"{path}/norm/scale" in graph.params:
        x = add_norm(graph, x, f"{path}/norm", config.norm_epsilon)
    pooler = "exits/pooler" if model.shared_pooler else f"{path}/pooler"
    pooled = add_pool(graph, x, "mask", model.settings.pooling)
    pooled = _add_float_dense(graph, pooled, pooler)
    pooled = add_activation(graph, pooled, model.pooler_activation)
    graph.name_output("logits", _add_float_dense(graph, pooled, f"{path}/classifier"))
    if model.settings.learn_to_exit:
        lte = graph.add("Sigmoid", _add_float_dense(graph, pooled, f"{path}/lte"))
        graph.name_output("lte", lte)


def _add_float_dense(graph: Graph, x: str, path: str) -> str:
    """Returns a dense layer of an exit: float32 in every precision."""
    # It computes one row per text, and scores near the threshold decide.
    kernel, bias = (graph.get_weight(f"{path}/{name}") for name in ("kernel", "bias"))
    return graph.add("Gemm", x, kernel, bias)
