"""The parts of self-attention: heads, scores, probabilities, context.

A separate function (`AttentionFn`) computes probabilities from scores, so that a
layer's attention can be replaced without changing the layer. Families with other scores
(disentangled, rotary) use the same parts.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float

from sweet_jax.models.layers import Dropout, make_dense, make_norm

# (scores_BHLM float32, mask broadcastable to it, True where a key may be read)
# -> probabilities_BHLM float32.
AttentionFn: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


def compute_masked_softmax(
    scores_BHLM: Float[jax.Array, "B H L M"], mask: Bool[jax.Array, "B #H #L M"]
) -> Float[jax.Array, "B H L M"]:
    """Returns softmax over the keys where `mask` is True.

    The fill is finfo.min, not -inf: a row without any readable key then becomes
    uniform instead of NaN, and passes no gradient.
    """
    lowest = jnp.finfo(scores_BHLM.dtype).min
    return jax.nn.softmax(jnp.where(mask, scores_BHLM, lowest), axis=-1)


def split_heads(x: Float[jax.Array, "*rows D"], num_heads: int) -> jax.Array:
    """Returns [*rows, H, K]; no data moves."""
    return x.reshape(*x.shape[:-1], num_heads, -1)


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
) -> Float[jax.Array, "B L D"]:
    """Returns the values averaged by the probabilities, with heads concatenated."""
    # The product runs in the values' computation type; probabilities are float32.
    context_BHLK = jnp.einsum(
        "BHLM,BHMK->BHLK",
        probabilities_BHLM.astype(value_BMHK.dtype),
        value_BMHK.swapaxes(1, 2),  # as in `compute_scores`
    )
    context_BLHK = context_BHLK.swapaxes(1, 2)
    return context_BLHK.reshape(*context_BLHK.shape[:-2], -1)


class SelfAttention(nn.Module):
    """Post-norm self-attention block: norm(x + dropout(output(attend(x)))).

    A family with other scores overrides only `compare`.

    Attributes:
        num_heads: H; must divide the hidden size.
        attention_dropout: rate on the probabilities.
        hidden_dropout: rate after the output layer.
        norm_epsilon: added to the variance.
        init_std: standard deviation of fresh kernels.
        dtype: computation type; scores and probabilities are float32.
        attention_fn: maps scores and mask to probabilities.
    """

    num_heads: int
    attention_dropout: float
    hidden_dropout: float
    norm_epsilon: float
    init_std: float
    dtype: Any = jnp.float32
    attention_fn: AttentionFn = compute_masked_softmax

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B #H #L L"],
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
        scores_BHLM, value_BMHK = self.compare(x_BLD, train, *shared)
        probabilities_BHLM = self.attention_fn(scores_BHLM, mask)
        probabilities_BHLM = Dropout(self.attention_dropout, name="attention_dropout")(
            probabilities_BHLM, train
        )
        context_BLD = compute_context(probabilities_BHLM, value_BMHK)
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
        """Returns the scores, float32 [B, H, L, M], and the values [B, M, H, K].

        Args:
            x_BLD: the input of queries, keys and values.
            train: whether dropout is on.
            shared: empty, or a bias added to the scores, [#B, H, L, L].
        """
        (bias,) = shared or (None,)
        query_BLHK, key_BMHK, value_BMHK = (
            split_heads(self.make_map(x_BLD.shape[-1], name)(x_BLD), self.num_heads)
            for name in ("query", "key", "value")
        )
        scores_BHLM = compute_scores(query_BLHK, key_BMHK)
        if bias is not None:
            scores_BHLM = scores_BHLM + bias
        return scores_BHLM, value_BMHK

    def make_map(self, features: int, name: str, use_bias: bool = True) -> nn.Dense:
        """Returns a dense layer of the block with `features` outputs."""
        return make_dense(features, self.init_std, self.dtype, name, use_bias)
