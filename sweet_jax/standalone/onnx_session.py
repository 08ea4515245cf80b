"""Checks a segment's ONNX file and starts ONNX Runtime on it.

This file is copied into ONNX folders, beside `loader.py`. An ONNX file may name other
files on the disk and operators of plugins. So before ONNX Runtime sees a file, its
fields are compared with those that exported segments have; any other one is refused.
"""

import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime

CPU_INFO = Path("/proc/cpuinfo")
# ONNX Runtime's own operators. The only one in use is for int8: the standard ones would
# write the products as int32 and read them twice more.
CONTRIB, CONTRIB_OPERATORS = "com.microsoft", frozenset({"MatMulIntegerToFloat"})
# No operator has a body, reads a file or calls a plugin.
OPERATORS = frozenset(
    {
        *("Abs", "Add", "Cast", "Concat", "Conv", "Div", "QuantizeLinear"),
        *("Gather", "Gelu", "Gemm", "Identity", "LayerNormalization", "LessOrEqual"),
        *("MatMul", "Max", "Min", "Mul", "Neg", "Pad", "Range", "ReduceSum", "Relu"),
        *("Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze"),
        *("Sub", "Tanh", "Transpose", "Unsqueeze", "Where"),
    }
)
# Message of onnx.proto -> number of a field -> its content: a message of this table, a
# whole number, bytes (text, floats and messages that are not looked into), or either of
# the last two (a list of numbers).
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {
        **dict.fromkeys((1, 5), "number"),
        **dict.fromkeys((2, 3, 4, 6, 14), "bytes"),
        **{7: "Graph", 8: "OperatorSet"},
    },
    "OperatorSet": {1: "bytes", 2: "number"},
    "Graph": {1: "Node", 5: "Tensor", **dict.fromkeys((2, 10, 11, 12, 13), "bytes")},
    "Node": {5: "Attribute", **dict.fromkeys((1, 2, 3, 4, 6, 7), "bytes")},
    "Attribute": {
        **dict.fromkeys((1, 2, 4), "bytes"),
        **dict.fromkeys((3, 20), "number"),
        **dict.fromkeys((7, 8), "numbers"),
    },
    "Tensor": {1: "numbers", 2: "number", 8: "bytes", 9: "bytes"},
}
# What has a length.
_LONG = {"bytes", "numbers", *_FIELDS}
_EXTERNAL = {("Tensor", 13), ("Tensor", 14)}
# Type of a tensor's values -> bytes of one: float, uint8, int8, int32, int64, bool.
_SIZES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1}
_MOST_AXES = 8


def start_session(
    model: bytes, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Returns a session on the CPU.

    Args:
        model: a segment, serialised.
        threads: number of threads; None: all cores that the process may use.

    Raises:
        ValueError: the file is damaged, holds what exported segments never do, or needs
            a newer ONNX Runtime or another processor.
    """
    check_segment(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or count_cores()
    # The graphs are final. Further fusions would bring the fused forms back that
    # `onnx_graphs.layers` avoids.
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    # Waiting threads would take time from the tokenizer and from other programs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # Errors are raised.
    try:
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # It has classes of its own, below Exception alone.
        raise ValueError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run it"
            f" ({describe(error)}): update onnxruntime, or export the model again"
        ) from error
    if session.get_modelmeta().custom_metadata_map.get("precision") == "int8":
        _check_processor()
    return session


def run_session(
    session: onnxruntime.InferenceSession, rows: dict[str, Any]
) -> dict[str, Any]:
    """Returns the outputs by name; raises ValueError if it fails on these rows."""
    names = [x.name for x in session.get_outputs()]
    try:
        found = session.run(names, {x.name: rows[x.name] for x in session.get_inputs()})
    except Exception as error:
        raise ValueError(
            f"a segment cannot be run ({describe(error)}): export the model again"
        ) from error
    return dict(zip(names, found, strict=True))


def describe(error: Exception) -> str:
    """Returns the error of ONNX Runtime in one line that is safe for a terminal."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    # Where in its sources the error arose says nothing to users.
    text = re.sub(r"/onnxruntime_src/.*?\) (?=[A-Z])", "", line)
    return repr(text[:200])[1:-1]


def check_segment(model: bytes) -> None:
    """Checks that a file holds only what exported segments hold.

    Raises:
        ValueError: it is damaged, refers to other files, has another operator, or any
            other field.
    """
    _check("Model", memoryview(model))


def _check(message: str, data: memoryview) -> None:
    """Checks a message and those in it."""
    found: dict[int, Any] = {}
    sizes = []
    for number, value in _read_fields(data):
        if (message, number) in _EXTERNAL:
            raise ValueError(
                "it refers to data in other files, which exported segments never do:"
                " export the model again"
            )
        content = _FIELDS[message].get(number)
        allowed = ("number", "numbers") if isinstance(value, int) else _LONG
        if content not in allowed:
            raise ValueError(_report(f"field {number} of a {message}"))
        if (message, number) == ("Tensor", 1):
            sizes += [value] if isinstance(value, int) else _read_numbers(value)
            if len(sizes) > _MOST_AXES:
                raise ValueError(_report(f"a tensor of more than {_MOST_AXES} axes"))
        elif content in _FIELDS and not isinstance(value, int):
            _check(content, value)
        found[number] = value  # As in protobuf, the last one counts.

    def get_text(number: int) -> str:
        return bytes(found.get(number, b"")).decode("utf-8", "replace")

    if message == "Tensor":
        wanted = math.prod(sizes) * _SIZES.get(found.get(2, 0), -1)
        if wanted != len(found.get(9, b"")):
            raise ValueError(_report(f"a tensor of shape {sizes} with other data"))
    elif message == "OperatorSet" and get_text(1) not in ("", CONTRIB):
        raise ValueError(_report(f"operators of {get_text(1)[:80]!r}"))
    elif message == "Node":
        allowed = {"": OPERATORS, CONTRIB: CONTRIB_OPERATORS}.get(get_text(7), ())
        if get_text(4) not in allowed:
            domain = f" of {get_text(7)[:80]!r}" if found.get(7) else ""
            raise ValueError(_report(f"the operator {get_text(4)[:80]!r}{domain}"))


def _report(what: str) -> str:
    return f"it has {what}, which exported segments never have: export the model again"


def _read_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields number and value of each field of a protobuf message."""
    place = 0
    while place < len(data):
        tag, place = _read_number(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _read_number(data, place)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, place = _read_number(data, place)
        else:
            size = {1: 8, 5: 4}.get(kind, len(data))
        if place + size > len(data):
            raise ValueError("it is damaged or cut short: copy it again")
        yield tag >> 3, data[place : place + size]
        place += size


def _read_numbers(data: memoryview) -> Iterator[int]:
    data, place = data[: 10 * (_MOST_AXES + 1)], 0
    while place < len(data):
        number, place = _read_number(data, place)
        yield number


def _read_number(data: memoryview, place: int) -> tuple[int, int]:
    """Returns the number of up to ten bytes at `place`, and the place after it."""
    number = 0
    for i, byte in enumerate(data[place : place + 10]):
        number |= (byte & 127) << (7 * i)
        if byte < 128:
            return number, place + i + 1
    raise ValueError("it is damaged or cut short: copy it again")


def _check_processor() -> None:
    """Raises ValueError on a processor whose 8-bit products are wrong.

    On x86 without VNNI, two products are added in 16 bits, in which they overflow. Only
    Linux tells what a processor has.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not CPU_INFO.exists():
        return
    lines = CPU_INFO.read_text("utf-8", errors="replace").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    if flags and not {"avx512_vnni", "avx_vnni", "amx_int8"} & {*flags}:
        raise ValueError(
            "this processor has neither VNNI nor AMX, so that 8-bit products overflow:"
            " export the model in float32 (without --int8)"
        )


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS cannot limit a process to some cores.
