"""Arrays that cross a wall of the house, and the one table of dimension letters.

| letter | dimension    | letter | dimension    |
|--------|--------------|--------|--------------|
| B      | batch        | E      | exits        |
| L      | length       | C      | classes      |
| M      | key length   | T      | thresholds   |
| D      | hidden       | N      | examples     |
| H      | heads        | K      | head dim     |
| F      | feed-forward | S      | distances    |
| R      | table rows   | P      | parts        |
"""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from sweet_jax.files import write_whole

Array: TypeAlias = jax.Array | np.ndarray
Params: TypeAlias = dict[str, Any]  # nested dict of arrays, leaves at "/"-paths
# An axis of a shape: an int or, while a program is exported, a symbol (`length`), whose
# class jax keeps to itself.
Size: TypeAlias = Any


class Batch(NamedTuple):
    """Rows of token ids of one static shape.

    A row with weight 0 only fills the shape: it counts in no loss and no metric.

    Attributes:
        token_ids: token ids, padded to the bucket's length.
        type_ids: segment (token type) ids; zeros where the family has none.
        mask: 1 at real tokens, 0 at padding.
        labels: class indices; 0 where the label is unknown.
        weights: 1 for a real row, 0 for a row that fills the shape.
        row_ids: position of the row in its published split; -1 for filling rows.
    """

    token_ids: Int[Array, "B L"]
    type_ids: Int[Array, "B L"]
    mask: Int[Array, "B L"]
    labels: Int[Array, " B"]
    weights: Float[Array, " B"]
    row_ids: Int[Array, " B"]


class ExitOutput(NamedTuple):
    """What one exit says about a batch.

    Attributes:
        logits_BC: float32 logits before temperature.
        lte_B: learning-to-exit scores in [0, 1]; None where no LTE head exists.
    """

    logits_BC: Float[Array, "B C"]
    lte_B: Float[Array, " B"] | None = None


@dataclasses.dataclass(frozen=True)
class LogitBank:
    """Outputs of every exit on every example: all that evaluation ever sees.

    Attributes:
        logits: float32 logits before temperature.
        labels: class indices.
        weights: 1 per example (kept general for weighted scores).
        row_ids: position of each row in its published split.
        part: calibration part, 0 (fit) or 1 (budget); zeros on test.
        lte: learning-to-exit scores, or None.
    """

    logits: Float[np.ndarray, "N E C"]
    labels: Int[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]
    row_ids: Int[np.ndarray, " N"]
    part: Int[np.ndarray, " N"]
    lte: Float[np.ndarray, "N E"] | None = None

    @property
    def num_exits(self) -> int:
        """The number of exits E."""
        return self.logits.shape[1]

    def select(
        self, rows: Bool[np.ndarray, " N"] | Int[np.ndarray, " K"]
    ) -> "LogitBank":
        """Returns the bank of the rows where `rows` is True, or at these positions."""
        return LogitBank(
            logits=self.logits[rows],
            labels=self.labels[rows],
            weights=self.weights[rows],
            row_ids=self.row_ids[rows],
            part=self.part[rows],
            lte=None if self.lte is None else self.lte[rows],
        )

    def select_part(self, part: int) -> "LogitBank":
        """Returns the rows of one calibration part."""
        return self.select(self.part == part)

    def save(self, path: Path, digest: str = "") -> None:
        """Writes the bank as .npz, whole or not at all, with what it depends on."""
        arrays = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        }
        save_npz(path, arrays | {"digest": np.array(digest)})

    @classmethod
    def load(cls, path: Path) -> "LogitBank":
        """Reads a bank written by `save`."""
        # np.load alone leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as arrays:
            return cls(**{name: arrays[name] for name in arrays if name != "digest"})


def read_digest(path: Path) -> str | None:
    """Returns the digest stored in an .npz file; None if it is absent or damaged."""
    try:
        with np.load(path) as arrays:
            return str(arrays["digest"]) if "digest" in arrays else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays to `path` atomically: a killed writer leaves no half file."""
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
