"""The frozen encoder: its states after every layer, its attention seen or replaced."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PRNGKeyArray

from sweet_jax.arrays import Array, Batch, Params
from sweet_jax.models.attention import AttentionFn, compute_masked_softmax
from sweet_jax.models.constant_attention import mix_attention
from sweet_jax.models.encoder import Encoder


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """An encoder and its weights, which nothing changes.

    Attributes:
        encoder: an unbound module of all layers.
        params: its parameters.
        final_norm: those of the norm after the last layer; None in families whose
            layers end in a norm.
        num_heads: heads H of each layer.
        features: width D.
    """

    encoder: Encoder
    params: Params
    final_norm: Params | None
    num_heads: int
    features: int

    @property
    def num_layers(self) -> int:
        """The number of layers n."""
        return self.encoder.num_layers

    @property
    def weights(self) -> dict[str, Params | None]:
        """The parameters as one tree, for `compute_states`."""
        return {"encoder": self.params, "norm": self.final_norm}

    def compute_states(
        self,
        weights: dict[str, Any],
        batch: Batch,
        attention_fns: Sequence[AttentionFn] | None = None,
        dropout_rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "B J L D"]:
        """Returns the states H_0 (embeddings) to H_n (paper: all hidden states).

        In pre-norm families the last one is normed, as in Hugging Face.

        Args:
            weights: as `weights`; passed in, so that a compiled program does not hold
                a copy.
            batch: rows in a fixed layout.
            attention_fns: one per layer; None: the encoder's own attention.
            dropout_rng: turns the encoder's dropout on (a quirk of the released code,
                whose frozen encoder stays in train mode); None: no dropout.
        """
        fns = None if attention_fns is None else tuple(attention_fns)
        encoder = self.encoder.clone(attention_fns=fns)
        train = dropout_rng is not None

        def run(module: Encoder) -> list[Array]:
            carry = module.embed(batch, train)
            states = [carry["x_BLD"]]
            for i in range(self.num_layers):
                carry = module.run_layers(carry, i, i + 1, train)
                states.append(carry["x_BLD"])
            return states

        states: Any = encoder.apply(
            {"params": weights["encoder"]},
            method=run,
            rngs={"dropout": dropout_rng} if train else {},
        )
        norm = self.encoder.make_final_norm()
        if norm is not None:
            states[-1] = norm.apply({"params": weights["norm"]}, states[-1])
        return jnp.stack(states, axis=1).astype(jnp.float32)

    def compute_attention(
        self, weights: dict[str, Any], batch: Batch
    ) -> Float[Array, "I B H L M"]:
        """Returns the encoder's own attention probabilities of every layer."""
        seen: list[jax.Array] = []

        def look(scores_BHLM: jax.Array, mask: jax.Array) -> jax.Array:
            seen.append(compute_masked_softmax(scores_BHLM, mask))
            return seen[-1]

        self.compute_states(weights, batch, [look] * self.num_layers)
        return jnp.stack(seen)


def make_attention(
    gates_IH: Float[Array, "I H"] | Bool[Array, "I H"],
    constants_IHLL: Float[Array, "I H L L"],
) -> list[AttentionFn]:
    """Returns a function per layer: gate A + (1 - gate) Abar (sections 4 and 5).

    Args:
        gates_IH: 1 where a head keeps its own attention, 0 where it is constant, and
            anything between while heads are ranked.
        constants_IHLL: the constants of every layer.
    """
    gates_IH = gates_IH.astype(jnp.float32)
    return [
        mix_attention(gates_H, constants_HLL)
        for gates_H, constants_HLL in zip(gates_IH, constants_IHLL, strict=True)
    ]
