"""Packed batches: rows of one width that hold several texts each.

Longest texts first, each goes into the fullest row that has room for it, or into a new
one. Few tokens of such rows are padding, whatever the lengths of the texts.
"""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from sweet_jax.arrays import Batch, count_texts
from sweet_jax.data.tokenize import Tokenized


@dataclasses.dataclass(frozen=True, eq=False)
class Packing:
    """Where N texts are in packed rows.

    Attributes:
        rows: the row of each text.
        columns: the place of its first token in that row.
        numbers: how many texts of the row stand before it.
        widths: width of each row.
    """

    rows: Int[np.ndarray, " N"]
    columns: Int[np.ndarray, " N"]
    numbers: Int[np.ndarray, " N"]
    widths: Int[np.ndarray, " R"]

    def find_answers(self, width: int) -> Int[np.ndarray, " N"]:
        """Returns the place of each text in the answers of rows of this width."""
        return self.rows * count_texts(width) + self.numbers

    def find_starts(self, width: int) -> Int[np.ndarray, " N"]:
        """Returns the place of each first token among all tokens of the rows."""
        return self.rows * width + self.columns

    def choose_rows(
        self, chosen: Int[np.ndarray, " K"]
    ) -> "tuple[np.ndarray, Packing]":
        """Returns the texts of some rows, and where they are in these rows alone."""
        place = np.full(len(self.widths), -1)
        place[chosen] = np.arange(len(chosen))
        texts = np.flatnonzero(place[self.rows] >= 0)
        packing = Packing(
            place[self.rows[texts]],
            self.columns[texts],
            self.numbers[texts],
            self.widths[chosen],
        )
        return texts, packing

    def select(self, chosen: np.ndarray) -> "Packing":
        """Returns where some of the texts are, in the same rows."""
        return Packing(
            self.rows[chosen], self.columns[chosen], self.numbers[chosen], self.widths
        )


def pack_texts(lengths_N: Int[np.ndarray, " N"], widths: Sequence[int]) -> Packing:
    """Places texts in as few rows as best-fit decreasing finds.

    Args:
        lengths_N: tokens of each text.
        widths: widths that a row may have, ascending; a row has the smallest that
            holds its first text, which is its longest.
    """
    num_texts = len(lengths_N)
    rows, columns, numbers = np.zeros((3, num_texts), np.int64)
    row_widths: list[int] = []
    counts: list[int] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), ascending
    lengths = lengths_N.tolist()
    for i in np.argsort(-lengths_N, kind="stable").tolist():
        length = lengths[i]
        best = bisect.bisect_left(room, (length, 0))
        if best < len(room):
            free, row = room.pop(best)
        else:
            free, row = next(w for w in widths if w >= length), len(row_widths)
            row_widths.append(free)
            counts.append(0)
        rows[i], columns[i], numbers[i] = row, row_widths[row] - free, counts[row]
        counts[row] += 1
        if counts[row] < count_texts(row_widths[row]):
            bisect.insort(room, (free - length, row))
    return Packing(rows, columns, numbers, np.array(row_widths, np.int64))


def find_tokens(
    starts_N: Int[np.ndarray, " N"], lengths_N: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " S"]:
    """Returns the places of all tokens of texts, text by text.

    Args:
        starts_N: place of the first token of each text; the others follow it.
        lengths_N: tokens of each text.
    """
    ends_N = np.cumsum(lengths_N)
    steps = np.arange(lengths_N.sum()) - np.repeat(ends_N - lengths_N, lengths_N)
    return np.repeat(starts_N, lengths_N) + steps


def make_packed_batch(
    tokenized: Tokenized,
    texts: Int[np.ndarray, " N"],
    packing: Packing,
    num_rows: int,
    pad_id: int,
) -> Batch:
    """Returns the arrays of packed rows of one width; labels and weights are zeros.

    Args:
        tokenized: the texts.
        texts: indices of those that are packed.
        packing: where each of them goes.
        num_rows: rows of the result; the last ones may be empty.
        pad_id: token id of padding.
    """
    width = int(packing.widths[0])
    lengths_N = tokenized.lengths[texts]
    target = find_tokens(packing.find_starts(width), lengths_N)
    source = find_tokens(tokenized.offsets[texts], lengths_N)

    def fill(values: np.ndarray, rest: int) -> np.ndarray:
        flat = np.full(num_rows * width, rest, np.int32)
        flat[target] = values
        return flat.reshape(num_rows, width)

    row = np.zeros(num_rows, np.int32)
    return Batch(
        token_ids=fill(tokenized.token_ids[source], pad_id),
        type_ids=fill(tokenized.type_ids[source], 0),
        mask=fill(find_tokens(np.ones_like(lengths_N), lengths_N), 0),
        labels=row,
        weights=row.astype(np.float32),
        row_ids=row,
    )
