"""Parts of the post-norm families: config, embeddings with absolute positions, layer.

BERT, RoBERTa and MPNet use these parts with different tables.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from sweet_jax.arrays import Array
from sweet_jax.models.attention import SelfAttention
from sweet_jax.models.constant_attention import ConstantHeads
from sweet_jax.models.layers import Dropout, FeedForward, make_embed, make_norm
from sweet_jax.models.masked_softmax import AttentionFn, compute_masked_softmax


@dataclasses.dataclass(frozen=True, kw_only=True)
class PostNormConfig:
    """The config of a post-norm encoder: sizes, activation, rates, epsilon.

    Attributes:
        family: Hugging Face's `model_type`.
        vocab_size: rows of the word table.
        hidden_size: width D.
        num_layers: layers of the checkpoint.
        num_heads: heads H of each layer.
        intermediate_size: feed-forward width F.
        hidden_act: a key of `layers.ACTIVATIONS`.
        hidden_dropout: rate after embeddings and after each block.
        attention_dropout: rate on attention probabilities.
        num_positions: rows of the position table; without one, the maximum length.
        num_types: rows of the token type table; 0 if a family has none.
        norm_epsilon: added to the variance in each norm.
        initializer_range: standard deviation of fresh kernels and tables.
    """

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    hidden_act: str
    hidden_dropout: float
    attention_dropout: float
    num_positions: int
    num_types: int = 0
    norm_epsilon: float
    initializer_range: float

    @property
    def has_position_table(self) -> bool:
        """Whether embeddings add a row for each absolute position."""
        return True

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads."""
        return 0

    @property
    def max_positions(self) -> int:
        """Longest input in tokens."""
        return self.num_positions - self.position_offset


class Embeddings(nn.Module):
    """Sum of word, type and position embeddings, normed.

    Attributes:
        config: sizes and rates.
        dtype: type of the output; the sum and the norm are float32.
    """

    config: PostNormConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "B L"],
        type_ids: Int[Array, "B L"],
        train: bool,
        positions: Int[Array, "B L"] | None = None,
    ) -> jax.Array:
        """Returns [B, L, D].

        Args:
            token_ids: token ids.
            type_ids: segment ids.
            train: whether dropout is on.
            positions: position of each token; None: 0, 1, ... in every row.
        """
        config = self.config
        size, std = config.hidden_size, config.initializer_range
        x_BLD = make_embed(config.vocab_size, size, std, "word")(token_ids)
        if config.num_types:
            types = make_embed(config.num_types, size, std, "type")
            # With only one type, the tokenizer's type ids are ignored.
            one = config.num_types == 1
            x_BLD = x_BLD + (types.embedding[None] if one else types(type_ids))
        if config.has_position_table:
            table = make_embed(config.num_positions, size, std, "position").embedding
            if positions is None:
                x_BLD = x_BLD + self.select_positions(table, token_ids)
            else:
                first = config.position_offset
                x_BLD = x_BLD + jnp.take(table, first + positions, axis=0, mode="clip")
        x_BLD = make_norm(config.norm_epsilon, self.dtype, "norm")(x_BLD)
        return Dropout(config.hidden_dropout, name="dropout")(x_BLD, train)

    def select_positions(
        self, table_RD: Float[Array, "R D"], token_ids: Int[Array, "B L"]
    ) -> Float[Array, "#B L D"]:
        """Returns the rows of the position table for rows of one text."""
        # Positions increase by 1 from the offset, so a slice replaces a gather.
        first = self.config.position_offset
        return table_RD[None, first : first + token_ids.shape[1]]


class PostNormLayer(nn.Module):
    """Self-attention block, then feed-forward block, both post-norm.

    Attributes:
        config: sizes and rates.
        dtype: computation type.
        attention_fn: maps scores and mask to probabilities.
    """

    config: PostNormConfig
    dtype: Any = jnp.float32
    attention_fn: AttentionFn | ConstantHeads = compute_masked_softmax

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B #H #L L"],
        train: bool,
        *shared: jax.Array,
    ) -> jax.Array:
        """Returns the layer's output, [B, L, D].

        Keys are read where `mask` is True; `shared` is passed to the attention.
        """
        config = self.config
        x_BLD = self.get_attention_class()(
            num_heads=config.num_heads,
            attention_dropout=config.attention_dropout,
            hidden_dropout=config.hidden_dropout,
            norm_epsilon=config.norm_epsilon,
            init_std=config.initializer_range,
            dtype=self.dtype,
            attention_fn=self.attention_fn,
            name="attention",
        )(x_BLD, mask, train, *shared)
        return FeedForward(
            features=config.intermediate_size,
            activation=config.hidden_act,
            dropout=config.hidden_dropout,
            norm_epsilon=config.norm_epsilon,
            init_std=config.initializer_range,
            dtype=self.dtype,
            name="feed_forward",
        )(x_BLD, train)

    def get_attention_class(self) -> Callable[..., nn.Module]:
        """Returns the class of the attention block; families may override it."""
        return SelfAttention
