"""Outputs of all exits on all rows, whatever the batches are."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from dense_model import init_dense_params, make_dense_model, make_rows
from two_exits import make_random_params, make_two_exit_model

from sweet_jax.arrays import Batch, Params
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.evaluation.collect import Collector
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.settings.fields import ExitSettings


@pytest.fixture(scope="module")
def params(tiny_encoder) -> Params:
    return make_random_params(make_two_exit_model(tiny_encoder))


def test_bank_does_not_depend_on_batch_size_or_padding(tiny_encoder, params):
    model = make_two_exit_model(tiny_encoder)
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 14, 23)
    ids = rng.integers(4, 30, lengths.sum()).astype(np.int32)
    rows = Tokenized(
        ids,
        np.zeros_like(ids),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.arange(23, dtype=np.int32) % 2,
        np.arange(23, dtype=np.int64),
        0,
    )
    banks = [
        Collector(model, size, buckets, pad_id=0).collect(params, rows)
        for size, buckets in ((4, (16,)), (7, (8, 14)), (23, (20,)))
    ]
    for bank in banks[1:]:
        np.testing.assert_allclose(bank.logits, banks[0].logits, atol=1e-5)
        np.testing.assert_array_equal(bank.row_ids, np.arange(23))


def test_a_bank_with_dropout_is_a_function_of_its_key():
    model = make_dense_model(dropout=0.1)
    params = init_dense_params(model)
    rows = Tokenized(
        np.full(40, 5, np.int32),
        np.zeros(40, np.int32),
        np.arange(0, 41, 4).astype(np.int64),
        np.zeros(10, np.int32),
        np.arange(10, dtype=np.int64),
        0,
    )

    def collect(seed: int | None) -> np.ndarray:
        key = None if seed is None else jax.random.key(seed)
        return Collector(model, 4, (8,), 0, key).collect(params, rows).logits

    one, again, two, none = (collect(seed) for seed in (1, 1, 2, None))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-4
    # All rows are one sentence: masks differ within a batch and from batch to batch.
    assert len(np.unique(one[:, 1, 0])) == 10
    np.testing.assert_allclose(np.ptp(none, axis=0), 0, atol=1e-6)


@pytest.fixture(scope="module")
def dense() -> tuple[MultiExitClassifier, Params]:
    """Three exits that learn to exit, and no dropout."""
    settings = ExitSettings(pooling="mean", dropout=0.0, learn_to_exit=True)
    model = make_dense_model(dropout=0.0).clone(settings=settings)
    return model, init_dense_params(model)


def test_a_bank_holds_each_row_in_its_place(dense):
    model, params = dense
    rows = dataclasses.replace(make_rows(7), row_ids=np.array([9, 2, 7, 1, 8, 3, 5]))
    part = np.array([0, 1, 1, 0, 1, 0, 0], np.int32)
    bank = Collector(model, 3, (4, 8), pad_id=0).collect(params, rows, part)
    apply = jax.jit(lambda batch: model.apply({"params": params}, batch))
    for n, row in enumerate(rows.cut(1)):
        ids = np.pad(row.token_ids, (0, 8 - len(row.token_ids)))[None]
        zeros, length = np.zeros_like(ids), len(row.token_ids)
        outputs: Any = apply(
            Batch(
                token_ids=ids,
                type_ids=zeros,
                mask=(np.arange(8) < length).astype(np.int32)[None],
                labels=row.labels,
                weights=np.ones(1, np.float32),
                row_ids=zeros[0, :1],
            )
        )
        for i, output in enumerate(outputs):
            np.testing.assert_allclose(
                bank.logits[n, i], output.logits_BC[0], atol=1e-6
            )
            np.testing.assert_allclose(bank.lte[n, i], output.lte_B[0], atol=1e-6)
    for found, expected in (
        (bank.labels, rows.labels),
        (bank.row_ids, rows.row_ids),
        (bank.part, part),
        (bank.weights, np.ones(7)),
    ):
        np.testing.assert_array_equal(found, expected)


def test_programs_are_one_per_length_and_kept_for_other_rows(dense):
    model, params = dense
    collector = Collector(model, 3, (4, 8), pad_id=0)
    rows = make_rows(9)
    first = collector.collect(params, rows)
    programs = dict(collector.programs.by_shape)
    assert sorted(length for _, length in programs) == [4, 8]
    # Parameters are not donated: they can be used again.
    again = collector.collect(params, rows)
    assert collector.programs.by_shape == programs
    np.testing.assert_array_equal(again.logits, first.logits)
    np.testing.assert_array_equal(again.part, np.zeros(9))
