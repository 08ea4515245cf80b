"""Constants of attention: averages over the training rows, and others to compare.

    C[l,h,a,b] = sum_x m_xa m_xb A_x[l,h,a,b] / sum_x m_xa m_xb

over rows x with masks m (section 3), 0 where no row has both slots. Sums and counts are
kept, so parts of the rows, computed by other devices or processes, can be added.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from sweet_jax.analysis.papa.frozen import Frozen
from sweet_jax.analysis.papa.layout import SlotRows
from sweet_jax.arrays import Batch
from sweet_jax.devices import Programs, make_mesh, replicate, shard_batch

AVERAGES = "averages"
_FEW = re.compile(AVERAGES + "_([1-9][0-9]{0,8})")


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionSums:
    """Sums of attention over rows, and in how many rows each pair of slots is real.

    Attributes:
        sums: of the probabilities where query and key are real.
        counts: rows in which both slots are real; the same for all layers and heads.
        num_rows: number of rows.
    """

    sums: Float[np.ndarray, "I H L L"]
    counts: Int[np.ndarray, "L L"]
    num_rows: int

    def __add__(self, other: "AttentionSums") -> "AttentionSums":
        """Returns the sums over both parts of the rows."""
        return AttentionSums(
            self.sums + other.sums,
            self.counts + other.counts,
            self.num_rows + other.num_rows,
        )

    def average(self) -> Float[np.ndarray, "I H L L"]:
        """Returns the float32 averages; 0 where no row has both slots."""
        # Each cell has a count of its own: rows of the result do not sum to 1.
        return (self.sums / np.maximum(self.counts, 1)).astype(np.float32)


def make_empty_sums(num_layers: int, num_heads: int, length: int) -> AttentionSums:
    """Returns the sums over no row."""
    shape = (length, length)
    return AttentionSums(
        np.zeros((num_layers, num_heads, *shape)), np.zeros(shape, np.int64), 0
    )


class AttentionPass:
    """Sums the frozen encoder's attention over rows, batch by batch.

    The rows of a batch are split over the devices, whose sums XLA adds up; batches are
    added in float64 on the host.
    """

    def __init__(self, frozen: Frozen, batch_size: int) -> None:
        """Sets up the jitted function; nothing is compiled yet."""
        self._frozen, self._batch_size = frozen, batch_size
        self._mesh = make_mesh(batch_size)

        def compute_sums(weights: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
            probabilities_IBHLM = frozen.compute_attention(weights, batch)
            real_BL = batch.mask.astype(jnp.float32)
            sums = jnp.einsum(
                "nbhlm,bl,bm->nhlm", probabilities_IBHLM, real_BL, real_BL
            )
            return sums, jnp.einsum("bl,bm->lm", real_BL, real_BL)

        replicated = NamedSharding(self._mesh, PartitionSpec())
        self._programs = Programs(jax.jit(compute_sums, out_shardings=replicated))
        self._weights = replicate(frozen.weights, self._mesh)

    def run(
        self,
        rows: SlotRows,
        order: Int[np.ndarray, " R"],
        on_rows: Callable[[int], None],
    ) -> AttentionSums:
        """Returns the sums over the rows at `order`.

        Args:
            rows: rows in the fixed layout.
            order: which of them.
            on_rows: called with the number of rows after each batch.
        """
        frozen, length = self._frozen, rows.length
        total = make_empty_sums(frozen.num_layers, frozen.num_heads, length)
        for start in range(0, len(order), self._batch_size):
            part = order[start : start + self._batch_size]
            batch = shard_batch(rows.take(part, self._batch_size), self._mesh)
            shape = (self._batch_size, length)
            program = self._programs.compile(shape, self._weights, batch)
            sums, counts = jax.device_get(program.call(self._weights, batch))
            total += AttentionSums(
                sums.astype(np.float64), counts.astype(np.int64), len(part)
            )
            on_rows(len(part))
        return total


def check_kind(name: str) -> None:
    """Raises ValueError unless a name is one of constants; see `make_constants`."""
    if name not in (AVERAGES, *_OTHERS) and not _FEW.fullmatch(name):
        raise ValueError(
            f"papa.constants={name!r}: allowed are {AVERAGES}, {AVERAGES}_N (of N"
            f" training rows), {', '.join(_OTHERS)}"
        )


def find_row_numbers(kinds: tuple[str, ...]) -> list[int]:
    """Returns the numbers N of all `averages_N`, rising."""
    return sorted({int(m[1]) for kind in kinds if (m := _FEW.fullmatch(kind))})


def make_constants(
    kind: str, by_rows: dict[int, AttentionSums]
) -> Float[np.ndarray, "I H L L"]:
    """Returns the constants of a kind.

    - `averages`: over all training rows, the paper's.
    - `averages_N`: over the first N rows of a random order.
    - `uniform`: every real token is read alike.
    - `identity`: every token reads itself.
    - `by_distance`: the average over all pairs of slots at the same distance and in the
      same direction (a Toeplitz matrix).

    Args:
        kind: the name.
        by_rows: number of rows -> sums over so many; the largest is of all rows.
    """
    whole = by_rows[max(by_rows)]
    if match := _FEW.fullmatch(kind):
        return by_rows[int(match[1])].average()
    return whole.average() if kind == AVERAGES else _OTHERS[kind](whole)


def _make_uniform(sums: AttentionSums) -> Float[np.ndarray, "I H L L"]:
    return np.ones(sums.sums.shape, np.float32)


def _make_identity(sums: AttentionSums) -> Float[np.ndarray, "I H L L"]:
    eye = np.eye(sums.sums.shape[-1], dtype=np.float32)
    return np.broadcast_to(eye, sums.sums.shape).copy()


def _average_by_distance(sums: AttentionSums) -> Float[np.ndarray, "I H L L"]:
    length = sums.sums.shape[-1]
    slots = np.arange(length)
    constants = np.zeros(sums.sums.shape, np.float32)
    for distance in range(-length + 1, length):
        queries = slots[max(0, -distance) : length - max(0, distance)]
        keys = queries + distance
        count = max(int(sums.counts[queries, keys].sum()), 1)
        mean_IH1 = sums.sums[..., queries, keys].sum(axis=-1, keepdims=True) / count
        constants[..., queries, keys] = mean_IH1
    return constants


_OTHERS: dict[str, Callable[[AttentionSums], np.ndarray]] = {
    "uniform": _make_uniform,
    "identity": _make_identity,
    "by_distance": _average_by_distance,
}
