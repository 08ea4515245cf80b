"""Frozen states are what the exits' poolers read before any training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_model import make_rows

from sweet_jax.arrays import Batch, Params
from sweet_jax.evaluation.frozen_states import FrozenStates
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.huggingface.safetensors import load_encoder
from sweet_jax.models.exit_heads import pool_states
from sweet_jax.models.init import init_params
from sweet_jax.models.multi_exit import MultiExitClassifier, split_model
from sweet_jax.settings.fields import ExitSettings

LAYERS = (0, 2)


@pytest.mark.parametrize(
    ("family", "pooling", "members"),
    [
        ("modernbert", "mean", ((0, 1),)),
        pytest.param("bert", "cls", ((0, 1),), marks=pytest.mark.slow),
        pytest.param("deberta-v2", "mean", ((0,), (1,)), marks=pytest.mark.slow),
        pytest.param("mpnet", "mean", ((0, 1),), marks=pytest.mark.slow),
        pytest.param("roberta", "mean", ((0,), (1,)), marks=pytest.mark.slow),
    ],
)
def test_states_are_those_that_exits_read(make_tiny_encoder, family, pooling, members):
    folder = make_tiny_encoder(family)
    config = load_config(folder)
    loaded = load_encoder(folder, config, LAYERS[-1] + 1)
    whole = MultiExitClassifier(
        encoder=make_encoder(config, LAYERS[-1] + 1, jnp.float32),
        exit_layers=LAYERS,
        exit_numbers=(0, 1),
        num_classes=2,
        features=config.hidden_size,
        settings=ExitSettings(pooling=pooling, dropout=0.0),
    )
    (*_, deepest) = split_model(whole, members, separate_tables=True)
    rows = make_rows(7)
    found = FrozenStates(
        deepest.encoder.clone(table_starts=(0,)),
        LAYERS,
        pooling,
        batch_size=4,
        buckets=(8,),
        pad_id=0,
    ).collect(loaded.encoder, loaded.final_norm, rows)
    (joint,) = split_model(whole, ((0, 1),), separate_tables=True)
    args = (joint, jax.random.key(0), loaded.encoder, None, loaded.final_norm)
    params = init_params(*args)
    batch = pad(rows)

    def read(module: Any) -> list[jax.Array]:
        carry, states = module.start(batch), []
        for i in range(2):
            carry = module.run_segment(i, carry)
            norm = module.exits.exit[str(i)].norm
            x_BLD = carry["x_BLD"] if norm is None else norm(carry["x_BLD"])
            states.append(pool_states(x_BLD, carry["mask_BL"], pooling))
        return states

    def apply(params: Params) -> Any:
        return joint.apply({"params": params}, method=read)

    expected: Any = jax.jit(apply)(params)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (7, config.hidden_size)
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def pad(rows: Any) -> Batch:
    """Returns all rows as one batch of 8 tokens."""
    ids_BL = np.zeros((rows.num_rows, 8), np.int32)
    for row, start, length in zip(ids_BL, rows.offsets, rows.lengths, strict=False):
        row[:length] = rows.token_ids[start : start + length]
    return Batch(
        token_ids=ids_BL,
        type_ids=np.zeros_like(ids_BL),
        mask=(np.arange(8) < rows.lengths[:, None]).astype(np.int32),
        labels=rows.labels,
        weights=np.ones(rows.num_rows, np.float32),
        row_ids=np.zeros(rows.num_rows, np.int32),
    )
