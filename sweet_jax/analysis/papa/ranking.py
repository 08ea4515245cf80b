"""Scores of heads: trained gates (section 5), and comparisons without training.

A low score means that the head becomes constant early.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from sweet_jax.analysis.papa.fit import LossFn, compute_mean_loss
from sweet_jax.analysis.papa.frozen import Frozen, make_attention
from sweet_jax.analysis.papa.layout import SlotRows
from sweet_jax.analysis.papa.probe import SentenceProbe
from sweet_jax.arrays import Batch, Params
from sweet_jax.devices import Programs
from sweet_jax.models.constant_attention import compute_constant_probabilities

_TINY = 1e-12


def make_gates_loss(
    frozen: Frozen, probe: SentenceProbe, drops_in_encoder: bool
) -> LossFn:
    """Returns the loss of a probe and gates: parameters `probe` and `gates`.

    A' = sigmoid(lam) A + (1 - sigmoid(lam)) Abar in all layers at once, with one scalar
    lam per head.

    Args:
        frozen: the encoder.
        probe: the probe.
        drops_in_encoder: dropout in the frozen encoder, as in the released code.
    """

    def compute_loss(
        params: Params, constants_IHLL: Any, weights: Any, batch: Batch, key: Any
    ) -> jax.Array:
        of_encoder, of_probe = jax.random.split(key)
        attention = make_attention(jax.nn.sigmoid(params["gates"]), constants_IHLL)
        states_BJLD = frozen.compute_states(
            weights, batch, attention, of_encoder if drops_in_encoder else None
        )
        logits: Any = probe.apply(
            {"params": params["probe"]},
            states_BJLD,
            batch.mask,
            True,
            rngs={"dropout": of_probe},
        )
        return compute_mean_loss(logits, batch)

    return compute_loss


def make_gates_init(
    frozen: Frozen, probe: SentenceProbe, length: int
) -> Callable[[PRNGKeyArray], Params]:
    """Returns key -> fresh probe, and gates of lam = 0."""
    init_probe = make_probe_init(frozen, probe, length)
    shape = (frozen.num_layers, frozen.num_heads)
    return lambda key: {**init_probe(key), "gates": jnp.zeros(shape)}


def make_probe_init(
    frozen: Frozen, probe: SentenceProbe, length: int
) -> Callable[[PRNGKeyArray], Params]:
    """Returns key -> fresh parameters of a probe, under the name `probe`."""
    states = jnp.zeros((1, frozen.num_layers + 1, length, frozen.features))
    mask = jnp.ones((1, length), jnp.int32)

    def init(key: PRNGKeyArray) -> Params:
        return {"probe": probe.init(key, states, mask, False)["params"]}

    return init


def measure_heads(
    frozen: Frozen,
    constants_IHLL: Float[np.ndarray, "I H L L"],
    rows: SlotRows,
    order: Int[np.ndarray, " R"],
    batch_size: int,
    on_rows: Callable[[int], None],
) -> dict[str, Float[np.ndarray, "I H"]]:
    """Returns scores of heads that need no training.

    - `distance`: mean total variation between A and its constant, over real queries: a
      head that is nearly constant becomes constant first.
    - `entropy`: minus the mean entropy of A over the entropy of uniform attention: the
      most uniform head becomes constant first.

    Args:
        frozen: the encoder.
        constants_IHLL: the constants.
        rows: rows in the fixed layout.
        order: which of them.
        batch_size: rows at once.
        on_rows: called with the number of rows after each batch.
    """

    def compute(weights: Any, constants: jax.Array, batch: Batch) -> Any:
        probabilities_IBHLM = frozen.compute_attention(weights, batch)
        real_BL = jnp.asarray(batch.mask) * jnp.asarray(batch.weights)[:, None]
        keys_B11L = jnp.asarray(batch.mask)[:, None, None, :] != 0
        constant = jax.vmap(compute_constant_probabilities, (0, None))(
            constants, keys_B11L
        )
        gap_IBHL = 0.5 * jnp.abs(probabilities_IBHLM - constant).sum(axis=-1)
        logs = jnp.log(jnp.maximum(probabilities_IBHLM, _TINY))
        entropy_IBHL = -(probabilities_IBHLM * logs).sum(axis=-1)
        longest_B = jnp.log(jnp.maximum(jnp.asarray(batch.mask).sum(axis=1), 2))
        share_IBHL = entropy_IBHL / longest_B[None, :, None, None]
        return (
            jnp.einsum("nbhl,bl->nh", gap_IBHL, real_BL),
            jnp.einsum("nbhl,bl->nh", share_IBHL, real_BL),
            real_BL.sum(),
        )

    programs, constants = Programs(jax.jit(compute)), jnp.asarray(constants_IHLL)
    weights, total = jax.device_put(frozen.weights), None
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        batch = rows.take(part, batch_size)
        program = programs.compile((batch_size, rows.length), weights, constants, batch)
        found = jax.device_get(program.call(weights, constants, batch))
        parts = [np.asarray(x, np.float64) for x in found]
        total = (
            parts
            if total is None
            else [a + b for a, b in zip(total, parts, strict=True)]
        )
        on_rows(len(part))
    assert total is not None, "there are training rows"
    gap_IH, entropy_IH, queries = total
    return {"distance": gap_IH / queries, "entropy": -entropy_IH / queries}
