"""constants.npz: sums of attention, sealed, with what they were computed from.

A file that is altered or truncated, or that is of another encoder, layout, length or
task, is refused.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sweet_jax.analysis.papa.constants import AttentionSums
from sweet_jax.arrays import ArraySpec, load_npz, save_npz
from sweet_jax.system.files import FileError, show

FILE_NAME = "constants.npz"
# Each field of an identity, and how a message calls another value of it.
FIELDS = {
    "encoder": "another encoder",
    "layout": "another layout",
    "length": "another length",
    "rows": "another task or other training rows",
}
_SPECS = {
    **{name: ArraySpec("U", ()) for name in FIELDS},
    "row_numbers": ArraySpec("i", ("R",)),
    "sums": ArraySpec("f", ("R", "I", "H", "L", "L")),
    "counts": ArraySpec("i", ("R", "L", "L")),
    "complete": ArraySpec("i", ()),
    "seconds": ArraySpec("f", ()),
    "seal": ArraySpec("U", ()),
}


class StoredSums(NamedTuple):
    """What a file contains.

    Attributes:
        by_rows: number of rows -> sums over the first so many, rising.
        is_complete: whether the last ones are of all training rows.
        seconds: time that they took.
    """

    by_rows: dict[int, AttentionSums]
    is_complete: bool
    seconds: float


def save_sums(path: Path, identity: Mapping[str, str], stored: StoredSums) -> None:
    """Writes sums atomically.

    Args:
        path: the file.
        identity: a value for each of `FIELDS`.
        stored: the sums.
    """
    parts = [stored.by_rows[number] for number in sorted(stored.by_rows)]
    arrays = {
        **{name: np.array(identity[name]) for name in FIELDS},
        "row_numbers": np.array([part.num_rows for part in parts]),
        "sums": np.stack([part.sums for part in parts]),
        "counts": np.stack([part.counts for part in parts]),
        "complete": np.array(int(stored.is_complete)),
        "seconds": np.array(float(stored.seconds)),
    }
    save_npz(path, arrays | {"seal": np.array(_compute_seal(arrays))})


def load_sums(path: Path, identity: Mapping[str, str], remedy: str) -> StoredSums:
    """Reads what `save_sums` wrote.

    Args:
        path: the file.
        identity: the fields that must be the same; others are not compared.
        remedy: what the user should do about a bad file, for the error message.

    Raises:
        FileError: it is missing, altered or damaged, or of another encoder, layout,
            length or task.
    """
    arrays = load_npz(path, _SPECS, remedy)
    seal = str(arrays.pop("seal"))
    if seal != _compute_seal(arrays) or not len(arrays["row_numbers"]):
        raise FileError(f"{path} was altered or damaged: {remedy}")
    for name, wanted in identity.items():
        found = str(arrays[name])
        if found != wanted:
            raise FileError(
                f"{path} is of {FIELDS[name]} ({show(found)}, here {wanted}): {remedy}"
            )
    by_rows = {
        int(number): AttentionSums(sums, counts, int(number))
        for number, sums, counts in zip(
            arrays["row_numbers"], arrays["sums"], arrays["counts"], strict=True
        )
    }
    return StoredSums(by_rows, bool(arrays["complete"]), float(arrays["seconds"]))


def _compute_seal(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns a sha256 of all arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
