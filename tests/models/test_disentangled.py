"""Disentangled attention: which distance reads which row of the table."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_deberta_v2 import BUCKETS
from recorded import load_recorded
from tiny_configs import TINY_CONFIGS

from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.deberta import DistanceTable
from sweet_jax.models.deberta_v2 import compute_log_buckets
from sweet_jax.models.disentangled import (
    PackedAttention,
    SeparateAttention,
    TiedAttention,
    find_rows,
    spread_distances,
)
from sweet_jax.models.init import make_example_batch
from sweet_jax.models.masked_softmax import compute_masked_softmax


@pytest.mark.parametrize(("num_buckets", "reach"), BUCKETS)
def test_buckets_equal_pytorch_at_every_distance(num_buckets, reach):
    arrays = load_recorded("deberta_v2").arrays
    got = compute_log_buckets(arrays["distances"], num_buckets, reach)
    want = arrays[f"buckets/{num_buckets}/{reach}"]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_terms_of_distances_spread_to_pairs_of_positions(length, rng):
    terms = rng.normal(size=(2, 3, length, 2 * length - 1)).astype(np.float32)
    spread = spread_distances(jnp.asarray(terms))
    assert spread.shape == (2, 3, length, length)
    for i in range(length):
        for j in range(length):
            want = terms[:, :, i, j - i + length - 1]
            np.testing.assert_array_equal(spread[:, :, i, j], want)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("deberta", {"max_relative_positions": 5}),
        ("deberta", {"max_relative_positions": -1}),
        ("deberta-v2", {"position_buckets": -1, "norm_rel_ebd": "none"}),
        ("deberta-v2", {"position_buckets": 6, "norm_rel_ebd": "none"}),
    ],
)
def test_a_distance_reads_the_row_of_its_bucket(family, change):
    config: Any = parse_config({**TINY_CONFIGS[family], **change})
    table = np.arange(2.0 * config.span)[:, None].repeat(16, 1).astype(np.float32)
    params = {"distance": {"embedding": table}}
    rows, place = DistanceTable(config).apply({"params": params}, 20)
    distances = np.arange(-19, 20)
    buckets = distances
    if family == "deberta-v2" and config.position_buckets > 0:
        buckets = compute_log_buckets(distances, 6, 32)
    want = np.clip(buckets + config.span, 0, 2 * config.span - 1)
    np.testing.assert_array_equal(rows[place, 0], want)
    # Rows that no distance reads are not mapped by any layer.
    assert len(rows) == len(set(want.tolist()))


def test_rows_are_found_once_each():
    rows, place = find_rows(np.array([-9, -2, -2, 0, 1, 7]), 3)
    assert rows.tolist() == [0, 1, 3, 4, 5]
    assert place.tolist() == [0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "attention_class", [PackedAttention, SeparateAttention, TiedAttention]
)
def test_the_replaced_step_gets_float32_scores_with_dropped_rows(attention_class, rng):
    """Dropout acts on rows of the table in training, before they are mapped."""
    seen = []

    def keep(scores_BHLM, mask):
        seen.append(scores_BHLM)
        return compute_masked_softmax(scores_BHLM, mask)

    make = functools.partial(
        attention_class,
        num_heads=2,
        attention_dropout=0.0,
        norm_epsilon=1e-6,
        init_std=0.5,
        dtype=jnp.bfloat16,
        attention_fn=keep,
    )
    x = jnp.asarray(rng.normal(size=(1, 3, 8)), jnp.float32)
    rows = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32)
    inputs = (x, jnp.ones((1, 1, 1, 3), bool), True, rows, jnp.arange(5))
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = make(hidden_dropout=0.0).init(keys, *inputs)
    for rate in (0.0, 0.5):
        make(hidden_dropout=rate).apply(variables, *inputs, rngs=keys)
    assert [scores.dtype for scores in seen] == [jnp.float32] * 3
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.allclose(seen[1], seen[2], atol=0.05)


def test_no_index_of_every_pair_of_positions_is_compiled_in():
    config = parse_config(TINY_CONFIGS["deberta-v2"])
    encoder = make_encoder(config, 1, jnp.float32)
    batch = make_example_batch(1, 32)
    params = jax.eval_shape(encoder.init, jax.random.key(0), batch)
    # Weights and batch are arguments, so what is left is compiled in.
    text = jax.jit(encoder.apply).lower(params, batch).as_text()
    sizes = re.findall(r'constant dense<["\[].*> : tensor<([\dx]+)x\w+>', text)
    elements = [math.prod(map(int, size.split("x"))) for size in sizes]
    assert max(elements) == 2 * 32 - 1
