"""Batches of few static shapes: length buckets, steps of an epoch, padded arrays.

Every plan has exactly ceil(N / batch_size) batches: the leftover rows of a bucket move
up to the next one, so at most one batch is short (it is filled with padding rows of
weight 0). A compiled step therefore sees at most one shape per bucket.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, Int64

from sweet_jax.arrays import Batch
from sweet_jax.data.tokenize import Tokenized


@dataclasses.dataclass(frozen=True, eq=False)
class BatchPlan:
    """Which rows form a batch.

    Attributes:
        length: the bucket, in tokens, that every row is padded to.
        rows: indices into the tokenised rows; at most the batch size.
    """

    length: int
    rows: Int64[np.ndarray, " R"]


def limit_buckets(buckets: Sequence[int], max_length: int) -> tuple[int, ...]:
    """Returns the buckets below `max_length`, and `max_length` itself as the last."""
    return (*(bucket for bucket in buckets if bucket < max_length), max_length)


def plan_epoch(
    lengths: Int[np.ndarray, " N"],
    batch_size: int,
    buckets: Sequence[int],
    seed: int,
    epoch: int,
    pairs_of: Int[np.ndarray, " N"] | None = None,
) -> list[BatchPlan]:
    """Returns the steps of one training epoch: a pure function of its arguments.

    Rows are shuffled within their bucket, and the order of the batches is shuffled.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a batch.
        buckets: increasing lengths to pad to; the longest row must fit the last one.
        seed: the run's seed.
        epoch: counted from 0.
        pairs_of: classes of which two rows each come into a batch together, where a
            bucket has two; None: rows come as shuffled.

    Raises:
        ValueError: a row is longer than the last bucket.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    plans = list(_fill_buckets(lengths, order, batch_size, buckets, pairs_of))
    return [plans[i] for i in rng.permutation(len(plans))]


def plan_evaluation(
    lengths: Int[np.ndarray, " N"], batch_size: int, buckets: Sequence[int]
) -> list[BatchPlan]:
    """Returns batches with every row once, shortest bucket first, unshuffled.

    Raises:
        ValueError: a row is longer than the last bucket.
    """
    return list(_fill_buckets(lengths, np.arange(len(lengths)), batch_size, buckets))


def make_batch(
    tokenized: Tokenized, plan: BatchPlan, batch_size: int, pad_id: int
) -> Batch:
    """Returns the padded arrays of a plan, always `batch_size` rows of `plan.length`.

    The padding rows at the end have weight 0, row_id -1 and a mask of zeros.

    Args:
        tokenized: the rows that the plan's indices point to.
        plan: rows and length of the batch.
        batch_size: rows of the result, padding rows included.
        pad_id: token id of padding.
    """
    starts_B = tokenized.offsets[plan.rows]
    lengths_B = tokenized.offsets[plan.rows + 1] - starts_B
    assert len(plan.rows) <= batch_size
    assert lengths_B.max(initial=0) <= plan.length
    num_padding = batch_size - len(plan.rows)
    # True at real tokens; padding rows are False everywhere.
    real_BL = np.zeros((batch_size, plan.length), bool)
    real_BL[: len(plan.rows)] = np.arange(plan.length)[None, :] < lengths_B[:, None]
    # Source positions in the row-by-row order of the boolean assignment below.
    within_row = np.arange(lengths_B.sum()) - np.repeat(
        np.cumsum(lengths_B) - lengths_B, lengths_B
    )
    source = np.repeat(starts_B, lengths_B) + within_row
    token_ids_BL = np.full(real_BL.shape, pad_id, np.int32)
    token_ids_BL[real_BL] = tokenized.token_ids[source]
    type_ids_BL = np.zeros(real_BL.shape, np.int32)
    type_ids_BL[real_BL] = tokenized.type_ids[source]

    def fill(values: np.ndarray, value: int) -> np.ndarray:
        return np.pad(values, (0, num_padding), constant_values=value)

    return Batch(
        token_ids=token_ids_BL,
        type_ids=type_ids_BL,
        mask=real_BL.astype(np.int32),
        labels=fill(tokenized.labels[plan.rows], 0),
        weights=fill(np.ones(len(plan.rows), np.float32), 0),
        # int32, the integer type of accelerators; no split has 2**31 rows.
        row_ids=fill(tokenized.row_ids[plan.rows].astype(np.int32), -1),
    )


def compute_padding_ratio(
    plans: Sequence[BatchPlan], lengths: Int[np.ndarray, " N"], batch_size: int
) -> float:
    """Returns the computed tokens (padding rows included) per real token."""
    padded = sum(plan.length * batch_size for plan in plans)
    real = sum(int(lengths[plan.rows].sum()) for plan in plans)
    return padded / real


def _fill_buckets(
    lengths: Int[np.ndarray, " N"],
    order: Int[np.ndarray, " N"],
    batch_size: int,
    buckets: Sequence[int],
    pairs_of: Int[np.ndarray, " N"] | None = None,
) -> Iterator[BatchPlan]:
    """Yields batches bucket by bucket, taking the rows of each in `order`."""
    limits = np.asarray(buckets)
    if lengths.max(initial=0) > limits[-1]:
        raise ValueError(
            f"a row of {lengths.max()} tokens exceeds the last bucket of {limits[-1]}:"
            " tokenise to that length or add a bucket"
        )
    bucket_of_row = np.searchsorted(limits, lengths)  # first bucket that holds the row
    waiting = np.empty(0, np.int64)
    for i in range(len(limits)):
        # Leftover rows of shorter buckets go first: they must not be left over again.
        waiting = np.concatenate([waiting, order[bucket_of_row[order] == i]])
        if pairs_of is not None:
            waiting = waiting[_pair(pairs_of[waiting])]
        num_full = len(waiting) // batch_size * batch_size
        for start in range(0, num_full, batch_size):
            rows = waiting[start : start + batch_size]
            yield BatchPlan(int(limits[bucket_of_row[rows].max()]), rows)
        waiting = waiting[num_full:]
    if len(waiting):
        yield BatchPlan(int(limits[bucket_of_row[waiting].max()]), waiting)


def _pair(labels_R: Int[np.ndarray, " R"]) -> Int64[np.ndarray, " R"]:
    """Returns positions: first pairs of equal labels, then what has no partner left.

    Otherwise their order is kept: a pair stands where the first of the two would.
    """
    by_label = np.argsort(labels_R, kind="stable")
    _, starts, counts = np.unique(
        labels_R[by_label], return_index=True, return_counts=True
    )
    rank = np.arange(len(labels_R)) - np.repeat(starts, counts)
    first = by_label[np.arange(len(labels_R)) - rank % 2]
    is_left = (rank % 2 == 0) & (rank == np.repeat(counts, counts) - 1)
    return by_label[np.lexsort((rank, first, is_left))]
