"""The backend for ONNX Runtime: segments of numpy rows, of any shape, on the CPU.

Its graphs are those of `onnx_graphs`. Nothing is compiled per shape, so batches may
have any number of rows and any length.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Int

from sweet_jax.arrays import Batch
from sweet_jax.engine.backend import Rows, SegmentOutput

CPU_INFO = Path("/proc/cpuinfo")


class OnnxSegments:
    """The segments of one model as sessions of ONNX Runtime.

    Safe to call from several threads.

    Attributes:
        num_segments: number of segments E.
        num_classes: number of classes C.
    """

    has_fixed_shapes = False

    def __init__(self, models: Sequence[bytes], num_classes: int) -> None:
        """Starts a session per segment.

        Args:
            models: the segments, from `make_segment_models`, serialised.
            num_classes: number of classes C.

        Raises:
            ValueError: ONNX Runtime cannot read a model, or the processor cannot
                compute its products.
        """
        self.num_segments, self.num_classes = len(models), num_classes
        self._sessions = [start_session(model) for model in models]
        self._inputs = [[x.name for x in s.get_inputs()] for s in self._sessions]
        self._outputs = [[x.name for x in s.get_outputs()] for s in self._sessions]
        self._notes = [s.get_modelmeta().custom_metadata_map for s in self._sessions]
        if any(notes.get("precision") == "int8" for notes in self._notes):
            _check_processor()

    @property
    def num_programs(self) -> int:
        """Number of sessions."""
        return self.num_segments

    def start(self, batch: Batch) -> SegmentOutput:
        """Runs segment 0, embeddings included, on a batch."""
        names = ("token_ids", "type_ids", "mask")
        rows = {name: np.asarray(getattr(batch, name)) for name in names}
        return self._run(0, rows)

    def run(self, segment: int, rows: Rows, length: int) -> SegmentOutput:
        """Runs a later segment on the rows of the segment before it."""
        return self._run(segment, rows)

    def take(self, rows: Rows, indices_R: Int[np.ndarray, " R"]) -> Rows:
        """Returns the rows at `indices_R`."""
        return {name: x[indices_R] for name, x in rows.items()}

    def put(self, queue: Rows, rows: Rows, slots_R: Int[np.ndarray, " R"]) -> Rows:
        """Returns the queue with row r at slots_R[r]; drops slots past its end."""
        kept = slots_R < len(queue["mask"])
        for name, x in rows.items():
            queue[name][slots_R[kept]] = x[kept]
        return queue

    def make_example(self, num_rows: int, length: int) -> Batch:
        """Returns a batch of this shape, for measurements."""
        ids = np.zeros((num_rows, length), np.int32)
        row = np.zeros(num_rows, np.int32)
        return Batch(ids, ids, ids + 1, row, row.astype(np.float32), row)

    def compile_lengths(self, num_rows: int, lengths: Sequence[int]) -> None:
        """Does nothing: a session runs every shape."""

    def warm_up(self, batch_rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Does nothing: a session runs every shape."""

    def count_flops(self, segment: int, num_rows: int, length: int) -> float:
        """Returns the FLOPs of the segment's matrix products."""
        names = ("per_row", "per_token", "per_pair")
        per_row, per_token, per_pair = (int(self._notes[segment][n]) for n in names)
        return 2.0 * num_rows * (per_row + length * (per_token + length * per_pair))

    def _run(self, segment: int, rows: Rows) -> SegmentOutput:
        inputs = {name: rows[name] for name in self._inputs[segment]}
        found: Any = self._sessions[segment].run(None, inputs)
        outputs = dict(zip(self._outputs[segment], found, strict=True))
        answers = outputs["logits"]
        if "lte" in outputs:
            answers = np.concatenate([answers, outputs["lte"]], axis=1)
        if "state_after" in outputs:
            rows = {"state": outputs["state_after"], "mask": rows["mask"]}
        return SegmentOutput(rows, answers)


def start_session(model: bytes) -> onnxruntime.InferenceSession:
    """Returns a session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_threads()
    # The graphs are final. Further fusions would bring the fused forms back that
    # `onnx_graphs.layers` avoids.
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    # Waiting threads would take time from the tokenizer and from other programs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # Errors are raised.
    try:
        return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # It has classes of its own, below Exception alone.
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run a segment:"
            f" {reason[:200]}"
        ) from error


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


def count_threads() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS cannot limit a process to some cores.
