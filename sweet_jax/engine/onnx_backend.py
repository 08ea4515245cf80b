"""The backend for ONNX Runtime: segments of numpy rows, of any shape, on the CPU.

Its graphs are those of `onnx_graphs`. Nothing is compiled per shape, so batches may
have any number of rows and any length.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from sweet_jax.arrays import Batch
from sweet_jax.engine.backend import Rows, SegmentOutput
from sweet_jax.standalone.onnx_session import run_session, start_session
from sweet_jax.system.files import show

_BATCH = {"token_ids", "type_ids", "mask"}
_COUNTS = ("per_row", "per_token", "per_pair")


class OnnxSegments:
    """The segments of one model as sessions of ONNX Runtime.

    Safe to call from several threads.

    Attributes:
        num_segments: number of segments E.
        num_classes: number of classes C.
        precisions: precision of each segment.
        has_lte: whether exits give a score of learning to exit.
    """

    has_fixed_shapes = False
    packed = None  # Batches as long as their longest row have little padding.

    def __init__(
        self, models: Sequence[bytes], num_classes: int, threads: int | None = None
    ) -> None:
        """Starts a session per segment.

        Args:
            models: the segments, from `make_segment_models`, serialised.
            num_classes: number of classes C.
            threads: number of threads; None: all cores that the process may use.

        Raises:
            ValueError: ONNX Runtime cannot read a model, the processor cannot compute
                its products, or the models are not the segments of one classifier.
        """
        self.num_segments, self.num_classes = len(models), num_classes
        self._sessions = []
        for i, model in enumerate(models):
            try:
                self._sessions.append(start_session(model, threads))
            except ValueError as error:
                raise ValueError(f"segment {i}: {error}") from error
        self._check_order()
        notes = [s.get_modelmeta().custom_metadata_map for s in self._sessions]
        self.precisions = [note.get("precision", "") for note in notes]
        self._counts = [
            [_read_count(note.get(n, "")) for n in _COUNTS] for note in notes
        ]

    def _check_order(self) -> None:
        """Raises ValueError unless each segment reads what the one before it gives."""
        outputs = [{x.name for x in s.get_outputs()} for s in self._sessions]
        self.has_lte = "lte" in outputs[0]
        # The members of a set of models start from the tokens.
        starts_again = "state_after" not in outputs[0]
        for i, session in enumerate(self._sessions):
            wanted = {"logits"} | ({"lte"} if self.has_lte else set())
            if not starts_again and i < self.num_segments - 1:
                wanted.add("state_after")
            given = _BATCH if i == 0 or starts_again else {"state", "mask"}
            read = {x.name for x in session.get_inputs()}
            if not read <= given or outputs[i] != wanted:
                raise ValueError(
                    f"segment {i} does not continue the segment before it, or gives"
                    " other outputs than segment 0: export the model again"
                )

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

    def take(self, rows: Rows, indices: Int[np.ndarray, " R"]) -> Rows:
        """Returns the rows at `indices`."""
        return {name: x[indices] for name, x in rows.items()}

    def put(self, queue: Rows, rows: Rows, slots: Int[np.ndarray, " R"]) -> Rows:
        """Returns the queue with row r at slots[r]; drops slots past its end."""
        kept = slots < len(queue["mask"])
        for name, x in rows.items():
            queue[name][slots[kept]] = x[kept]
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
        per_row, per_token, per_pair = self._counts[segment]
        return 2.0 * num_rows * (per_row + length * (per_token + length * per_pair))

    def _run(self, segment: int, rows: Rows) -> SegmentOutput:
        outputs = run_session(self._sessions[segment], rows)
        widths = {"logits": self.num_classes} | ({"lte": 1} if self.has_lte else {})
        for name, width in widths.items():
            found, shape = outputs[name], (len(rows["mask"]), width)
            if found.shape != shape or found.dtype != np.float32:
                raise ValueError(
                    f"segment {segment} gives {name} of {found.dtype} {found.shape},"
                    f" expected float32 {shape}: export the model again"
                )
        answers = np.concatenate([outputs[name] for name in widths], axis=1)
        if "state_after" in outputs:
            rows = {"state": outputs["state_after"], "mask": rows["mask"]}
        return SegmentOutput(rows, answers)


def _read_count(text: str) -> int:
    """Returns a number of products from the metadata of a model."""
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(
            f"a segment states {show(text[:80])!r} products: export the model again"
        )
    return int(text)
