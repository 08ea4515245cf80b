"""An ONNX graph under construction: nodes, and weights at their parameter paths."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sweet_jax.standalone.onnx_session import CONTRIB, CONTRIB_OPERATORS, OPERATORS

# ONNX Runtime 1.18 and later read both; Gelu is new in operator set 20.
OPSET, IR_VERSION = 20, 9
_TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}


class Graph:
    """Collects nodes and constants; values are referred to by their names.

    Attributes:
        params: parameter path -> values.
        ranges: path of a product -> lowest and highest value of its input. Products
            with kernels of the encoder's layers are then computed in 8 bits; None: in
            float32.
        multiplied: path of a product -> name of its input, for the products so far.
    """

    def __init__(
        self, params: Mapping[str, Any], ranges: "Ranges | None" = None
    ) -> None:
        """Starts an empty graph.

        Args:
            params: parameter path -> values.
            ranges: see the class.
        """
        self.params, self.ranges = params, ranges
        self.multiplied: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._num_values = 0

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output, and returns the output's name."""
        return self.add_many(op, 1, *inputs, **attributes)[0]

    def add_many(
        self, op: str, count: int, /, *inputs: str, **attributes: Any
    ) -> list[str]:
        """Adds a node, and returns the names of its outputs.

        Args:
            op: name of the operator.
            count: number of outputs.
            *inputs: names of the inputs; an empty one leaves an optional input out.
            **attributes: attributes of the node.
        """
        outputs = [self._make_name(op) for _ in range(count)]
        # Readers of segments refuse any other operator.
        assert op in OPERATORS | CONTRIB_OPERATORS, op
        domain = CONTRIB if op in CONTRIB_OPERATORS else ""
        node = helper.make_node(
            op, list(inputs), outputs, outputs[0], domain=domain, **attributes
        )
        self._nodes.append(node)
        return outputs

    def get_weight(self, path: str) -> str:
        """Returns the name of a parameter, which is its path."""
        return self.make_constant(self.params[path], path)

    def make_constant(self, values: Any, name: str = "") -> str:
        """Returns the name of a constant.

        Args:
            values: an array, or what numpy makes one of.
            name: its name; a second constant of this name is the first one. Without
                a name, equal small values are one constant.
        """
        if not name:
            array = np.asarray(values)
            name = f"{array.dtype}{array.tolist()}".replace(" ", "")
        if name not in self._constants:
            array = np.ascontiguousarray(np.asarray(values))
            # A scalar would become a vector.
            array = array.reshape(np.shape(values))
            self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def make_axes(self, *values: int) -> str:
        """Returns the name of a constant of integers: axes, sizes or indices."""
        return self.make_constant(np.array(values, np.int64))

    def make_model(
        self,
        inputs: Mapping[str, "Spec"],
        outputs: Mapping[str, "Spec"],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """Returns the finished model.

        Args:
            inputs: name -> type and shape of the inputs.
            outputs: name -> type and shape of values that nodes made, by `name_output`.
            metadata: text that readers of the model find by name.
        """
        graph = helper.make_graph(
            self._nodes,
            "segment",
            [_describe(name, spec) for name, spec in inputs.items()],
            [_describe(name, spec) for name, spec in outputs.items()],
            list(self._constants.values()),
        )
        opsets = [
            helper.make_opsetid("", OPSET),
            helper.make_opsetid(CONTRIB, 1),
        ]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="sweet_jax",
        )
        helper.set_model_props(model, dict(metadata))
        return model

    def count_products(self, width: int) -> dict[str, str]:
        """Returns the numbers of multiplications: per row, per token, per pair.

        The products of attention are those of two tokens. The terms of distances
        (DeBERTa) and convolutions are not counted.

        Args:
            width: D, the width of the states.
        """
        sizes = {name: tuple(x.dims) for name, x in self._constants.items()}
        counts = {"per_row": 0, "per_token": 0, "per_pair": 0}
        for node in self._nodes:
            weights = sizes.get(node.input[1], ()) if len(node.input) > 1 else ()
            if node.op_type == "Gemm":
                counts["per_row"] += math.prod(weights)
            elif node.op_type in ("MatMul", "MatMulIntegerToFloat") and weights:
                counts["per_token"] += math.prod(weights)
            elif node.op_type == "Softmax":  # Scores and context of all heads.
                counts["per_pair"] += 2 * width
        return {name: str(count) for name, count in counts.items()}

    def name_output(self, name: str, value: str) -> None:
        """Gives a value the name of an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name))

    def _make_name(self, op: str) -> str:
        self._num_values += 1
        return f"{op}_{self._num_values}"


Ranges: TypeAlias = Mapping[str, tuple[float, float]]
# Type and shape of an input or output: an axis is a number or a name (`length`). None:
# any shape.
Spec = tuple[str, Sequence[int | str] | None]


def _describe(name: str, spec: Spec) -> onnx.ValueInfoProto:
    kind, shape = spec
    return helper.make_tensor_value_info(
        name, _TYPES[kind], None if shape is None else list(shape)
    )
