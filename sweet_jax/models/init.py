"""Initial parameters of a model: the encoder's checkpoint and fresh exits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from sweet_jax.arrays import Batch, Params
from sweet_jax.models.exit_heads import norm_paths, pooler_paths
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.models.shared_tables import copy_tables
from sweet_jax.trees import flatten_paths, merge_strict, unflatten_paths


def make_example_batch(rows: int = 1, length: int = 8) -> Batch:
    """Returns a batch of zeros, used only for its shapes."""
    ids = np.zeros((rows, length), np.int32)
    row = np.zeros(rows, np.int32)
    return Batch(ids, ids, ids, row, row.astype(np.float32), row)


def compute_shapes(model: Any) -> Params:
    """Returns the parameter tree as shapes; nothing is allocated or compiled."""
    variables = jax.eval_shape(model.init, jax.random.key(0), make_example_batch())
    return variables["params"]


def init_params(
    model: MultiExitClassifier,
    rng: PRNGKeyArray,
    encoder: Params,
    pooler: Params | None,
    final_norm: Params | None = None,
) -> Params:
    """Returns the parameters before training.

    Args:
        model: the model.
        rng: key of the fresh exits; the exit of a number gets the same values under
            every method, because Linen derives them from the path.
        encoder: the checkpoint's encoder, as deep as the model's; all segments' copies
            of a shared table start equal.
        pooler: the checkpoint's pooler {kernel, bias}, copied into every exit; None:
            fresh poolers.
        final_norm: the checkpoint's norm after the last layer, copied into every exit;
            None in families whose layers end in a norm.

    Raises:
        ValueError: the checkpoint does not fit the model; all leaves are listed.
    """

    def init_exits(key: PRNGKeyArray) -> Params:
        states_BLD = jnp.zeros((1, 1, model.features))
        mask_BL = jnp.ones((1, 1), jnp.int32)
        variables = model.init(key, states_BLD, mask_BL, method=model.run_exits)
        return dict(variables["params"])

    fresh = flatten_paths(jax.jit(init_exits)(rng))
    poolers = pooler_paths(model.exit_numbers, model.shared_pooler)
    norms = norm_paths(model.exit_numbers)
    # A norm is never fresh: if the checkpoint has none, the merge reports it missing.
    fresh = {
        path: leaf
        for path, leaf in fresh.items()
        if not path.startswith(tuple(f"{norm}/" for norm in norms))
    }
    for paths, part in ((poolers, pooler), (norms, final_norm)):
        if part is not None:
            for path in paths:
                fresh |= {f"{path}/{name}": leaf for name, leaf in part.items()}
    return merge_strict(
        compute_shapes(model),
        {
            "encoder": copy_tables(encoder, len(model.encoder.table_starts)),
            **unflatten_paths(fresh),
        },
    )
