"""Files of segments come from anyone: only what exported segments hold is run."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sweet_jax.standalone import onnx_session
from sweet_jax.standalone.onnx_session import check_segment, run_session, start_session

ONE = np.ones(4, np.float32)


def make_model(
    nodes: list[onnx.NodeProto] | None = None,
    tensors: list[TensorProto] | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    """Returns a model that adds w to x, unless it has other nodes and tensors."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])] if nodes is None else nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(ONE, "w")] if tensors is None else tensors,
    )
    ids = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=ids, ir_version=9)


def make_external() -> TensorProto:
    tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="../../secret")
    return tensor


def make_if(branch: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)


def test_what_exported_segments_hold_is_run():
    session = start_session(make_model().SerializeToString(), threads=1)
    np.testing.assert_array_equal(run_session(session, {"x": ONE})["y"], 2 * ONE)


def add_model(name: str) -> Callable[[onnx.ModelProto], Any]:
    return lambda model: getattr(model, name).add()


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "data in another file": (
        make_model(tensors=[make_external()]),
        "refers to data in other files",
    ),
    "the same, sparse": (
        make_model([], []),
        "field 15 of a Graph",
    ),
    "the same, in a branch": (
        make_model([make_if(make_model(tensors=[make_external()]).graph)]),
        "field 6 of a Attribute",
    ),
    "the same, in an attribute": (
        make_model([helper.make_node("Constant", [], ["y"], value=make_external())]),
        "field 5 of a Attribute",
    ),
    "an operator with a body": (
        make_model([helper.make_node("Loop", ["x"], ["y"])]),
        "the operator 'Loop'",
    ),
    "an operator of a plugin": (
        make_model([helper.make_node("Add", ["x"], ["y"], domain="evil\n")]),
        r"the operator 'Add' of 'evil\\n'",
    ),
    "an operator of ONNX Runtime that reads files": (
        make_model([helper.make_node("EPContext", [], ["y"], domain="com.microsoft")]),
        "the operator 'EPContext' of 'com.microsoft'",
    ),
    "a function": (make_model(), "field 25 of a Model"),
    "steps of training": (make_model(), "field 20 of a Model"),
    "a shape without data": (
        make_model(tensors=[TensorProto(name="w", data_type=1, dims=[1 << 40] * 2)]),
        r"a tensor of shape \[1099511627776, 1099511627776\] with other data",
    ),
    "a negative shape": (
        make_model(tensors=[TensorProto(name="w", data_type=1, dims=[-1])]),
        "a tensor of shape",
    ),
    "many axes": (
        make_model(tensors=[TensorProto(name="w", data_type=1, dims=[0] * 10000)]),
        "a tensor of more than 8 axes",
    ),
    "texts": (
        make_model(tensors=[TensorProto(name="w", data_type=8, dims=[4])]),
        "a tensor of shape",
    ),
    "an operator set of a plugin": (make_model(), "operators of 'evil'"),
    "a newer operator set": (
        make_model(opset=99),
        r"^ONNX Runtime [\d.]+ cannot run it \(.*Opset 99 .*: update onnxruntime, or",
    ),
    "a newer file format": (
        make_model(),
        r"cannot run it \(.*Unsupported model IR version: 99, .*: update onnxruntime",
    ),
}
REFUSED["the same, sparse"][0].graph.sparse_initializer.add().values.CopyFrom(
    make_external()
)
REFUSED["a function"][0].functions.add()
REFUSED["steps of training"][0].training_info.add()
REFUSED["an operator set of a plugin"][0].opset_import.add(domain="evil", version=1)
REFUSED["a newer file format"][0].ir_version = 99


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_in_one_line(case):
    model, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        start_session(model.SerializeToString())
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


def test_bytes_that_are_no_segment_are_refused():
    whole = make_model().SerializeToString()
    number = b"\x38\x01"  # Field 7, the graph, as a number.
    for data in (b"nonsense", whole[:-1], b"\xff" * 20, b"\x3a\xff\x7f", number):
        with pytest.raises(ValueError, match=r"^it (is damaged|has )"):
            check_segment(data)
    # In a second graph, which protobuf merges with the first.
    merged = make_model(tensors=[make_external()]).SerializeToString()
    with pytest.raises(ValueError, match="in other files"):
        check_segment(whole + merged)


def test_shapes_may_be_packed():
    for dims, refused in (
        (b"\x02\x02", False),
        (b"\x02\x03", True),
        (b"\x01" * 9, True),
    ):
        shape = b"\x0a" + bytes([len(dims)]) + dims  # Field 1, with a length.
        tensor = shape + b"\x10\x01\x4a\x10" + ONE.tobytes()
        if not refused:
            onnx_session._check("Tensor", memoryview(tensor))
            continue
        with pytest.raises(ValueError, match="it has a tensor of"):
            onnx_session._check("Tensor", memoryview(tensor))


def test_the_table_of_fields_is_that_of_the_format():
    kinds = {
        kind: getattr(onnx, f"{kind}Proto")
        for kind in onnx_session._FIELDS
        if kind != "OperatorSet"
    }
    kinds["OperatorSet"] = onnx.OperatorSetIdProto
    names = {proto.DESCRIPTOR.name: kind for kind, proto in kinds.items()}
    for kind, proto in kinds.items():
        fields = {field.number: field for field in proto.DESCRIPTOR.fields}
        for number, content in onnx_session._FIELDS[kind].items():
            inner = fields[number].message_type
            if inner is not None and inner.name in names:
                assert content == names[inner.name]
            else:
                assert content in ("number", "numbers", "bytes")


def test_rows_that_cannot_be_run_are_one_line():
    node = helper.make_node("Gather", ["w", "i"], ["y"])
    model = make_model([node])
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("i", TensorProto.INT64, [1])
    )
    session = start_session(model.SerializeToString())
    for rows, message in (
        ({"i": np.array([9])}, "a segment cannot be run"),
        ({}, "a segment cannot be run"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            run_session(session, rows)
        assert str(error.value).isprintable()
