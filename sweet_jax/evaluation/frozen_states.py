"""Pooled states of an encoder without its exits, at every exit.

Exits start from linear models of these states, and those of the encoder as published
are the baselines of a run (`baselines.py`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float, PRNGKeyArray

from sweet_jax.arrays import Array, Batch, Params
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.evaluation.collect import RowPass
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.exit_heads import pool_states


class PooledEncoder(nn.Module):
    """An encoder that returns the state an exit's pooler would read, at every exit.

    In pre-norm families the checkpoint's final norm is applied first, as an exit does.

    Attributes:
        encoder: an unbound module, at least as deep as the last exit.
        exit_layers: the layer that each exit reads, counted from 0, increasing.
        pooling: `mean` over real tokens, or `cls`.
    """

    encoder: Encoder
    exit_layers: tuple[int, ...]
    pooling: str

    def setup(self) -> None:
        """Makes the final norm of pre-norm families."""
        self.norm = self.encoder.make_final_norm()

    def __call__(self, batch: Batch) -> Float[Array, "B E D"]:
        """Returns the pooled states in float32."""
        carry, states, first = self.encoder.embed(batch, False), [], 0
        for layer in self.exit_layers:
            carry = self.encoder.run_layers(carry, first, layer + 1, False)
            first, x_BLD = layer + 1, carry["x_BLD"]
            if self.norm is not None:
                x_BLD = self.norm(x_BLD)
            states.append(pool_states(x_BLD, carry["mask_BL"], self.pooling))
        return jax.numpy.stack(states, axis=1)


class FrozenStates:
    """Collects the pooled states of an encoder; keeps compiled programs.

    The states depend on the encoder, the exit layers and the pooling only: not on the
    method, the seed or the classes.
    """

    def __init__(
        self,
        encoder: Encoder,
        exit_layers: Sequence[int],
        pooling: str,
        *,
        batch_size: int,
        buckets: tuple[int, ...],
        pad_id: int,
    ) -> None:
        """Makes the model; nothing is compiled yet.

        Args:
            encoder: an unbound module, as deep as the last exit.
            exit_layers: the layer that each exit reads, counted from 0, increasing.
            pooling: `mean` over real tokens, or `cls`.
            batch_size: rows per batch; the states do not depend on it.
            buckets: lengths that batches are padded to.
            pad_id: token id of padding.
        """
        self._model = model = PooledEncoder(encoder, tuple(exit_layers), pooling)
        self._batching: dict[str, Any] = {
            "batch_size": batch_size,
            "buckets": buckets,
            "pad_id": pad_id,
        }

        def compute_states(
            params: Params, batch: Batch, _: PRNGKeyArray | None
        ) -> dict[str, Array]:
            states: Any = model.apply({"params": params}, batch)
            return {"states_BED": states}

        self._rows = RowPass(compute_states, batch_size, buckets, pad_id)

    def with_encoder(
        self, encoder: Encoder, exit_layers: Sequence[int]
    ) -> "FrozenStates":
        """Returns a collector for another encoder or other exits; itself for its own.

        The arguments are those of `__init__`.
        """
        model = self._model
        if (model.encoder, model.exit_layers) == (encoder, tuple(exit_layers)):
            return self
        return FrozenStates(encoder, exit_layers, model.pooling, **self._batching)

    @property
    def spent(self) -> dict[str, float | int]:
        """What all calls took: compile_seconds, num_programs and flops."""
        programs = self._rows.programs
        return {
            "compile_seconds": round(programs.seconds, 3),
            "num_programs": len(programs.by_shape),
            "flops": self._rows.flops,
        }

    @property
    def memory(self) -> int:
        """XLA's temporary memory of the largest program, in bytes."""
        programs = self._rows.programs.by_shape.values()
        return max((program.temporary_bytes for program in programs), default=0)

    def collect(
        self, encoder: Params, final_norm: Params | None, rows: Tokenized
    ) -> list[Float[np.ndarray, "N D"]]:
        """Returns the float32 states of all rows in their order, one array per exit.

        On several hosts, all of them make this call.

        Args:
            encoder: parameters of the encoder, with a copy of shared tables for each of
                its `table_starts`.
            final_norm: those of the norm after the last layer; None in families whose
                layers end in a norm.
            rows: the rows.
        """
        params = {"encoder": encoder}
        if final_norm is not None:
            params["norm"] = final_norm
        states_NED = self._rows.run(params, rows)["states_BED"]
        return list(np.ascontiguousarray(states_NED.swapaxes(0, 1)))
