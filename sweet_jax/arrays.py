"""Array types shared by all packages, and the one table of dimension letters.

| letter | dimension    | letter | dimension    |
|--------|--------------|--------|--------------|
| B      | batch        | E      | exits        |
| L      | length       | C      | classes      |
| M      | key length   | T      | thresholds   |
| D      | hidden       | N      | examples     |
| H      | heads        | K      | head dim     |
| F      | feed-forward | S      | distances    |
| R      | table rows   | P      | parts        |
| I      | layers       | J      | states       |
"""

import dataclasses
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from sweet_jax.system.files import (
    COPY_AGAIN,
    FileError,
    check_file,
    explain_damage,
    write_whole,
)

Array: TypeAlias = jax.Array | np.ndarray
Params: TypeAlias = dict[str, Any]  # nested dict of arrays, leaves at "/"-paths
# Packed texts have at least this many tokens on average.
_TOKENS_PER_TEXT = 8
# The part of calibration rows whose labels are not read.
UNLABELLED = 2
# The size of an axis: an int or, during export, a symbol (`length`) of a class that is
# private to jax.
Size: TypeAlias = Any


class Batch(NamedTuple):
    """Rows of token ids of one static shape.

    Rows of weight 0 are padding: no loss and no metric counts them.

    In a packed batch a row holds several texts, one after the other (`data.packing`).

    Attributes:
        token_ids: token ids, padded to the bucket's length.
        type_ids: segment (token type) ids; zeros where the family has none.
        mask: 1 at real tokens, 0 at padding; in a packed batch, the position of a real
            token in its text, counted from 1.
        labels: class indices; 0 where the label is unknown.
        weights: 1 for a real row, 0 for a padding row.
        row_ids: position of the row in its published split; -1 for padding rows.
    """

    token_ids: Int[Array, "B L"]
    type_ids: Int[Array, "B L"]
    mask: Int[Array, "B L"]
    labels: Int[Array, " B"]
    weights: Float[Array, " B"]
    row_ids: Int[Array, " B"]


def count_texts(width: int) -> int:
    """Returns the most texts of a packed row, for which exits give outputs."""
    return -(-width // _TOKENS_PER_TEXT)


class ExitOutput(NamedTuple):
    """The output of one exit for a batch.

    Attributes:
        logits_BC: float32 logits before temperature.
        lte_B: learning-to-exit scores in [0, 1]; None without an LTE head.
        pooled_BD: the pooler's outputs before dropout; in training only.
    """

    logits_BC: Float[Array, "B C"]
    lte_B: Float[Array, " B"] | None = None
    pooled_BD: Float[Array, "B D"] | None = None


@dataclasses.dataclass(frozen=True)
class LogitBank:
    """Outputs of every exit on every example; evaluation reads nothing else.

    Attributes:
        logits: float32 logits before temperature.
        labels: class indices; 0 in rows of the part `UNLABELLED`.
        weights: 1 per example (kept general for weighted scores).
        row_ids: position of each row in its published split.
        part: calibration part, 0 (fit), 1 (budget) or `UNLABELLED`; zeros on test.
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
        """Writes the bank atomically as .npz, with the digest of its training."""
        arrays = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        }
        save_npz(path, arrays | {"digest": np.array(digest)})

    @classmethod
    def load(
        cls, path: Path, remedy: str = COPY_AGAIN, digest: str | None = None
    ) -> "LogitBank":
        """Reads a bank written by `save`.

        Args:
            path: the file.
            remedy: what the user should do about a bad file, for the error message.
            digest: the expected digest; None accepts any.

        Raises:
            FileError: it is missing or damaged, has another digest, or its content is
                invalid: no rows, numbers that are not finite, labels of no class.
        """
        arrays = load_npz(path, _BANK, remedy)
        found = str(arrays.pop("digest"))
        if digest is not None and found != digest:
            raise FileError(f"{path} is of another training: {remedy}")
        bank = cls(**arrays)
        if problem := bank._find_problem():
            raise FileError(f"{path} is damaged ({problem}): {remedy}")
        return bank

    def _find_problem(self) -> str | None:
        """Returns why the bank cannot be evaluated, or None."""
        if 0 in self.logits.shape:
            return f"logits of shape {self.logits.shape}"
        for name in ("logits", "weights", "lte"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                return f"{np.count_nonzero(~np.isfinite(values))} {name} are not finite"
        num_classes = self.logits.shape[2]
        if self.labels.min() < 0 or self.labels.max() >= num_classes:
            return f"labels outside of 0 to {num_classes - 1}"
        if self.part.min() < 0 or self.part.max() > UNLABELLED:
            return f"parts other than 0 to {UNLABELLED}"
        return "weights below 0" if self.weights.min() < 0 else None


class ArraySpec(NamedTuple):
    """The required kind and shape of an array in an .npz file.

    Attributes:
        kind: numpy's `dtype.kind`: "f", "i", or "U" for text.
        shape: its sizes; a letter matches any size, the same size in all arrays.
        optional: whether the array may be missing.
    """

    kind: str
    shape: tuple[int | str, ...]
    optional: bool = False


_BANK = {
    "logits": ArraySpec("f", ("N", "E", "C")),
    "labels": ArraySpec("i", ("N",)),
    "weights": ArraySpec("f", ("N",)),
    "row_ids": ArraySpec("i", ("N",)),
    "part": ArraySpec("i", ("N",)),
    "lte": ArraySpec("f", ("N", "E"), optional=True),
    "digest": ArraySpec("U", ()),
}


_MOST_EXPANSION = 16


def load_npz(
    path: Path, specs: Mapping[str, ArraySpec], remedy: str = COPY_AGAIN
) -> dict[str, np.ndarray]:
    """Reads arrays that `save_npz` wrote, from a file that may be hostile.

    Nothing is unpickled. All arrays together take at most 16 times the size of the
    file.

    Args:
        path: the file.
        specs: name -> its spec; arrays of other names are refused.
        remedy: what the user should do about a bad file, for the error message.

    Raises:
        FileError: the file is missing or damaged, or an array is missing, unknown or
            of another kind or shape.
    """
    check_file(path, remedy)
    with explain_damage(path, remedy), zipfile.ZipFile(path) as file:
        members = _find_members(file, path.stat().st_size, specs)
        sizes: dict[str, int] = {}
        for name, member in members.items():
            with file.open(member) as data:
                _check_header(name, specs[name], data, member.file_size, sizes)
        arrays = {}
        for name, member in members.items():
            with file.open(member) as data:
                arrays[name] = np.lib.format.read_array(data, allow_pickle=False)
    return arrays


def _find_members(
    file: zipfile.ZipFile, num_bytes: int, specs: Mapping[str, ArraySpec]
) -> dict[str, zipfile.ZipInfo]:
    """Returns name -> zip entry; ValueError if the names are not those of `specs`."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in file.infolist():
        name = member.filename.removesuffix(".npy")
        if name not in specs or name in members:
            raise ValueError(f"{member.filename[:80]!r} is unknown or a duplicate")
        members[name] = member
    # A study compresses its banks to a bit less than half; a hostile file could expand
    # a thousandfold.
    if sum(m.file_size for m in members.values()) > _MOST_EXPANSION * num_bytes:
        raise ValueError(f"it expands to more than {_MOST_EXPANSION} times its size")
    for name, spec in specs.items():
        if name not in members and not spec.optional:
            raise ValueError(f"it has no {name}")
    return members


def _check_header(
    name: str,
    spec: ArraySpec,
    data: Any,
    num_bytes: int,
    sizes: dict[str, int],
) -> None:
    """Checks the header of an array before its data is read.

    Args:
        name: the array's name.
        spec: its required kind and shape.
        data: a .npy file, open for reading.
        num_bytes: the length of that file.
        sizes: letter -> size; new letters are added.

    Raises:
        ValueError: the header does not match the spec or the file's length.
    """
    version = np.lib.format.read_magic(data)
    if version != (1, 0):  # numpy writes numbers with this version only.
        raise ValueError(f"{name} has .npy version {version}")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(data)
    except TypeError as error:  # Of numpy's parser, over a header such as {[]: 1}.
        raise ValueError(f"{name} has a malformed header: {error}") from error
    if dtype.kind != spec.kind or not dtype.isnative or dtype.itemsize > 1024:
        raise ValueError(f"{name} is of type {dtype}")
    wanted = tuple(sizes.get(x, x) if isinstance(x, str) else x for x in spec.shape)
    fits = len(shape) == len(wanted) and all(
        size >= 0 and (isinstance(x, str) or size == x)
        for size, x in zip(shape, wanted, strict=True)
    )
    if not fits:
        shown = str(shape)[:80]
        expected = ", ".join(map(str, wanted))
        raise ValueError(f"{name} has shape {shown}, expected ({expected})")
    sizes |= {x: n for x, n in zip(spec.shape, shape, strict=True) if type(x) is str}
    if data.tell() + math.prod(shape) * dtype.itemsize != num_bytes:
        raise ValueError(f"{name} is cut short or too long for shape {shape}")


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays to `path` atomically: a killed writer leaves no half file."""
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
