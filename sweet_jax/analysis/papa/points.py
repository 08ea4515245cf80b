"""One point of the figure: probes on an encoder with k constant heads (section 6).

The states of the training rows are computed once and kept (`Kept`), or again in every
step (`Streamed`). Both give the same probes. Keeping needs a frozen encoder without
dropout, and rows x (n + 1) x L x width x 4 bytes for each point that is trained at the
same time; the released code computes them in every step, with dropout.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sweet_jax.analysis.papa.fit import LossFn, compute_mean_loss
from sweet_jax.analysis.papa.frozen import Frozen, make_attention
from sweet_jax.analysis.papa.layout import SlotRows
from sweet_jax.analysis.papa.probe import SentenceProbe
from sweet_jax.arrays import Batch, Params
from sweet_jax.devices import Programs


class Heads(NamedTuple):
    """Which heads of a point are dynamic, and the constants of the others."""

    dynamic_IH: Bool[Any, "*P I H"]
    constants_IHLL: Float[Any, "*P I H L L"]


def apply_probe(
    probe: SentenceProbe, params: Params, states: Any, batch: Batch, key: Any
) -> jax.Array:
    """Returns logits; with a key, dropout before the classifier is on."""
    rngs = {} if key is None else {"dropout": key}
    logits: Any = probe.apply(
        {"params": params["probe"]}, states, batch.mask, key is not None, rngs=rngs
    )
    return logits


def make_kept_loss(probe: SentenceProbe) -> LossFn:
    """Returns the loss of a probe on kept states, the data of its point."""

    def compute_loss(
        params: Params, states_NJLD: Any, _: Any, batch: Batch, key: Any
    ) -> jax.Array:
        states_BJLD = states_NJLD[batch.row_ids]
        return compute_mean_loss(
            apply_probe(probe, params, states_BJLD, batch, key), batch
        )

    return compute_loss


def make_streamed_loss(
    frozen: Frozen, probe: SentenceProbe, drops_in_encoder: bool
) -> LossFn:
    """Returns the loss of a probe on states that each step computes from `Heads`."""

    def compute_loss(
        params: Params, heads: Any, weights: Any, batch: Batch, key: Any
    ) -> jax.Array:
        of_encoder = jax.random.fold_in(key, 1) if drops_in_encoder else None
        states_BJLD = frozen.compute_states(
            weights, batch, make_attention(*heads), of_encoder
        )
        return compute_mean_loss(
            apply_probe(probe, params, states_BJLD, batch, key), batch
        )

    return compute_loss


class StatePass:
    """Computes the states of rows with some heads constant; keeps its programs."""

    def __init__(self, frozen: Frozen, probe: SentenceProbe, batch_size: int) -> None:
        """Sets up the jitted functions; nothing is compiled yet."""
        self._batch_size = batch_size

        def fill(
            kept_PNJLD: Any, weights: Any, heads: Heads, batch: Batch, place: Any
        ) -> Any:
            point, first = place
            states = frozen.compute_states(weights, batch, make_attention(*heads))
            return jax.lax.dynamic_update_slice(
                kept_PNJLD, states[None], (point, first, 0, 0, 0)
            )

        def score(params_S: Params, weights: Any, heads: Heads, batch: Batch) -> Any:
            states = frozen.compute_states(weights, batch, make_attention(*heads))
            return jax.vmap(lambda p: apply_probe(probe, p, states, batch, None))(
                params_S
            )

        self._frozen, self._weights = frozen, jax.device_put(frozen.weights)
        self._fill = Programs(jax.jit(fill, donate_argnums=0))
        self._score = Programs(jax.jit(score))

    @property
    def weights(self) -> Any:
        """The encoder's weights, on the device."""
        return self._weights

    def keep(
        self, heads: Heads, rows: SlotRows, on_rows: Callable[[int], None]
    ) -> Float[jax.Array, "P N J L D"]:
        """Returns the states of all rows at every point, on the device.

        Args:
            heads: of P points.
            rows: the training rows.
            on_rows: called with the number of rows after each batch.
        """
        size, num_points = self._batch_size, len(heads.dynamic_IH)
        padded = -(-rows.num_rows // size) * size
        num_states = self._frozen.num_layers + 1
        shape = (num_points, padded, num_states, rows.length, self._frozen.features)
        kept = jnp.zeros(shape, jnp.float32)
        for point in range(num_points):
            own = Heads(*(jnp.asarray(part[point]) for part in heads))
            for first in range(0, rows.num_rows, size):
                chosen = np.arange(first, min(first + size, rows.num_rows))
                batch = rows.take(chosen, size)
                args = (kept, self._weights, own, batch, (point, first))
                program = self._fill.compile((num_points * padded, rows.length), *args)
                kept = program.call(*args)
                kept.block_until_ready()
                on_rows(len(chosen))
        return kept

    def score(
        self,
        params_PS: Params,
        heads: Heads,
        rows: SlotRows,
        on_rows: Callable[[int], None],
    ) -> Float[np.ndarray, "P S N C"]:
        """Returns the logits of every probe on all rows, in their order.

        Args:
            params_PS: parameters of the probes of P points and S seeds.
            heads: of P points.
            rows: rows to score.
            on_rows: called with the number of rows after each batch.
        """
        points = []
        for point in range(len(heads.dynamic_IH)):
            own = Heads(*(jnp.asarray(part[point]) for part in heads))
            params_S = jax.tree.map(lambda x, point=point: x[point], params_PS)
            parts = []
            for first in range(0, rows.num_rows, self._batch_size):
                chosen = np.arange(first, min(first + self._batch_size, rows.num_rows))
                batch = rows.take(chosen, self._batch_size)
                args = (params_S, self._weights, own, batch)
                shape = (self._batch_size, rows.length)
                logits_SBC = self._score.compile(shape, *args).call(*args)
                parts.append(np.asarray(logits_SBC)[:, : len(chosen)])
                on_rows(len(chosen))
            points.append(np.concatenate(parts, axis=1))
        return np.stack(points)
