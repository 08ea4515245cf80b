"""The parts of self-attention: scores, probabilities, context.

A separate function (`AttentionFn`) computes probabilities from scores, so that a
layer's attention can be replaced without changing the layer, or its heads be constant
(`ConstantHeads`). Families with other scores (disentangled, rotary) use the same parts.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from sweet_jax.models.constant_attention import (
    ConstantHeads,
    compute_constant_context,
    compute_constant_probabilities,
)
from sweet_jax.models.heads import HeadDense, merge_heads, take_heads
from sweet_jax.models.layers import Dropout, make_dense, make_norm
from sweet_jax.models.masked_softmax import AttentionFn, compute_masked_softmax


def compute_scores(
    query_BLHK: Float[jax.Array, "B L H K"], key_BMHK: Float[jax.Array, "B M H K"]
) -> Float[jax.Array, "B H L M"]:
    """Returns float32 scores q k / sqrt(K)."""
    # Scaling queries costs K operations per row; scaling scores would cost M.
    scaled_BLHK = query_BLHK * (query_BLHK.shape[-1] ** -0.5)
    # Heads first in both: on CPU, XLA is several times slower if the product has to
    # move axes.
    return jnp.einsum(
        "BHLK,BHMK->BHLM",
        scaled_BLHK.swapaxes(1, 2),
        key_BMHK.swapaxes(1, 2),
        preferred_element_type=jnp.float32,
    )


def compute_context(
    probabilities_BHLM: Float[jax.Array, "B H L M"],
    value_BMHK: Float[jax.Array, "B M H K"],
) -> Float[jax.Array, "B L H K"]:
    """Returns the values of each head averaged by its probabilities."""
    # The product runs in the values' computation type; probabilities are float32.
    context_BHLK = jnp.einsum(
        "BHLM,BHMK->BHLK",
        probabilities_BHLM.astype(value_BMHK.dtype),
        value_BMHK.swapaxes(1, 2),  # as in `compute_scores`
    )
    return context_BHLK.swapaxes(1, 2)


class HeadAttention(nn.Module, kw_only=True):
    """What the attention blocks of all families share; subclasses compute the scores.

    Heads that are constant need only values: subclasses compute queries, keys and
    scores of `dynamic_heads` alone.

    Attributes:
        num_heads: H; must divide the hidden size.
        attention_dropout: rate on the probabilities.
        init_std: standard deviation of fresh kernels.
        dtype: computation type; scores and probabilities are float32.
        attention_fn: maps scores and mask to probabilities, or says which heads are
            constant.
    """

    num_heads: int
    attention_dropout: float
    init_std: float
    dtype: Any = jnp.float32
    attention_fn: AttentionFn | ConstantHeads = compute_masked_softmax

    @property
    def dynamic_heads(self) -> tuple[int, ...]:
        """The heads whose probabilities depend on the input."""
        if isinstance(self.attention_fn, ConstantHeads):
            return self.attention_fn.find_others(self.num_heads)
        return tuple(range(self.num_heads))

    def attend(
        self,
        scores_BGLM: Float[jax.Array, "B G L M"],
        value_BMHK: Float[jax.Array, "B M H K"],
        mask: Bool[jax.Array, "B 1 #L M"],
        train: bool,
    ) -> Float[jax.Array, "B L D"]:
        """Returns the values averaged by the probabilities, with heads concatenated.

        Args:
            scores_BGLM: the scores of the dynamic heads.
            value_BMHK: the values of all heads.
            mask: True where a key may be read.
            train: whether dropout is on.
        """
        dropout = Dropout(self.attention_dropout, name="attention_dropout")

        def average(probabilities: jax.Array, heads: tuple[int, ...]) -> jax.Array:
            value = take_heads(value_BMHK, heads, 2)
            return compute_context(dropout(probabilities, train), value)

        attend, dynamic = self.attention_fn, self.dynamic_heads
        if not isinstance(attend, ConstantHeads):
            context_BLHK = average(attend(scores_BGLM, mask), dynamic)
        else:
            constants_HLL = self.param(
                "constants",
                nn.initializers.constant(1 / attend.length),
                (len(attend.heads), attend.length, attend.length),
            )
            constants_HLL = jnp.asarray(constants_HLL)
            if train or mask.shape[2] != 1:
                probabilities = compute_constant_probabilities(constants_HLL, mask)
                context_BLHK = average(probabilities, attend.heads)
            else:
                value = take_heads(value_BMHK, attend.heads, 2)
                context_BLHK = compute_constant_context(
                    constants_HLL, mask[:, 0, 0], value
                )
            if dynamic:
                others_BLGK = average(attend.attention_fn(scores_BGLM, mask), dynamic)
                context_BLHK = merge_heads(others_BLGK, context_BLHK, attend.heads, 2)
        return context_BLHK.reshape(*context_BLHK.shape[:2], -1)

    def make_heads(
        self, features: int, name: str, parts: int = 1, use_bias: bool = True
    ) -> HeadDense:
        """Returns a dense layer to `parts` projections of each head.

        Args:
            features: the width of all heads together.
            name: the layer's name.
            parts: projections that share the layer's kernel; their heads count on.
            use_bias: whether a bias is added.
        """
        return HeadDense(
            features=parts * features,
            num_heads=parts * self.num_heads,
            init_std=self.init_std,
            dtype=self.dtype,
            use_bias=use_bias,
            name=name,
        )

    def make_map(self, features: int, name: str, use_bias: bool = True) -> nn.Dense:
        """Returns a dense layer of the block with `features` outputs."""
        return make_dense(features, self.init_std, self.dtype, name, use_bias)


class SelfAttention(HeadAttention, kw_only=True):
    """Post-norm self-attention block: norm(x + dropout(output(attend(x)))).

    A family with other scores overrides only `compare`.

    Attributes:
        hidden_dropout: rate after the output layer.
        norm_epsilon: added to the variance.
    """

    hidden_dropout: float
    norm_epsilon: float

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B 1 #L L"],
        train: bool,
        *shared: jax.Array | None,
    ) -> jax.Array:
        """Returns the block's output, [B, L, D].

        Args:
            x_BLD: the input of queries, keys and values.
            mask: True where a key may be read.
            train: whether dropout is on.
            shared: arrays from the shared tables, for `compare`.
        """
        scores_BGLM, value_BMHK = self.compare(x_BLD, train, *shared)
        context_BLD = self.attend(scores_BGLM, value_BMHK, mask, train)
        output = self.make_map(x_BLD.shape[-1], "output")
        out_BLD = Dropout(self.hidden_dropout, name="dropout")(
            output(context_BLD), train
        )
        return make_norm(self.norm_epsilon, self.dtype, "norm")(x_BLD + out_BLD)

    def compare(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        train: bool,
        *shared: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the scores of dynamic heads and the values of all.

        Scores are float32 [B, G, L, M], values [B, M, H, K].

        Args:
            x_BLD: the input of queries, keys and values.
            train: whether dropout is on.
            shared: empty, or a bias added to the scores, [#B, H, L, L].
        """
        (bias,) = shared or (None,)
        query_BLGK, key_BMGK = (
            self.make_heads(x_BLD.shape[-1], name)(x_BLD, self.dynamic_heads)
            for name in ("query", "key")
        )
        value_BMHK = self.make_heads(x_BLD.shape[-1], "value")(
            x_BLD, range(self.num_heads)
        )
        scores_BGLM = compute_scores(query_BLGK, key_BMGK)
        if bias is not None:
            scores_BGLM = scores_BGLM + take_heads(bias, self.dynamic_heads, 1)
        return scores_BGLM, value_BMHK
