"""BERT encoder (Devlin et al., 2019): learned absolute positions, post-norm layers.

Departures from Hugging Face's BertModel: no pooler (every exit owns one), no decoder
and no cross-attention, masks by finfo.min, and a depth that may stop short of the
checkpoint's (`num_layers`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from sweet_jax.arrays import Array, Batch
from sweet_jax.models.attention import (
    AttentionFn,
    SelfAttention,
    compute_masked_softmax,
)
from sweet_jax.models.layers import (
    Carry,
    Dropout,
    FeedForward,
    make_embed,
    make_norm,
)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """What defines a BERT: sizes, activation, rates, epsilon.

    Attributes:
        vocab_size: rows of the word table.
        hidden_size: width D.
        num_layers: layers of the checkpoint.
        num_heads: heads H of each layer.
        intermediate_size: feed-forward width F.
        hidden_act: a key of `layers.ACTIVATIONS`.
        hidden_dropout: rate after embeddings and after each block.
        attention_dropout: rate on attention probabilities.
        max_positions: longest input in tokens.
        num_types: rows of the token type table.
        norm_epsilon: added to the variance in each norm.
        initializer_range: standard deviation of fresh kernels and tables.
        pad_token_id: id of the padding token.
        family: name of the family, Hugging Face's `model_type`.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    hidden_act: str
    hidden_dropout: float
    attention_dropout: float
    max_positions: int
    num_types: int
    norm_epsilon: float
    initializer_range: float
    pad_token_id: int
    family: str = "bert"


class BertEmbeddings(nn.Module):
    """Sum of word, type and position embeddings, normed.

    Attributes:
        config: sizes and rates.
        dtype: type of the output; the sum and the norm are float32.
    """

    config: BertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "B L"],
        type_ids: Int[Array, "B L"],
        train: bool,
    ) -> jax.Array:
        """Returns [B, L, D].

        Raises:
            ValueError: the input is longer than the table of positions.
        """
        config = self.config
        length = token_ids.shape[1]
        if length > config.max_positions:
            raise ValueError(
                f"inputs of {length} tokens are longer than the encoder's"
                f" {config.max_positions} positions: lower data.max_length"
            )
        size, std = config.hidden_size, config.initializer_range
        word_BLD = make_embed(config.vocab_size, size, std, "word")(token_ids)
        type_BLD = make_embed(config.num_types, size, std, "type")(type_ids)
        # Positions are always 0 ... L-1: a slice of the table, no gather.
        table = make_embed(config.max_positions, size, std, "position").embedding
        x_BLD = word_BLD + type_BLD + table[None, :length]
        x_BLD = make_norm(config.norm_epsilon, self.dtype, "norm")(x_BLD)
        return Dropout(config.hidden_dropout, name="dropout")(x_BLD, train)


class BertLayer(nn.Module):
    """Self-attention block, then feed-forward block, both post-norm.

    Attributes:
        config: sizes and rates.
        dtype: computation type.
        attention_fn: scores and mask to probabilities.
    """

    config: BertConfig
    dtype: Any = jnp.float32
    attention_fn: AttentionFn = compute_masked_softmax

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B #H #L L"],
        train: bool,
    ) -> jax.Array:
        """Returns the layer's output, [B, L, D]; keys are read where `mask` is True."""
        config = self.config
        x_BLD = SelfAttention(
            num_heads=config.num_heads,
            attention_dropout=config.attention_dropout,
            hidden_dropout=config.hidden_dropout,
            norm_epsilon=config.norm_epsilon,
            init_std=config.initializer_range,
            dtype=self.dtype,
            attention_fn=self.attention_fn,
            name="attention",
        )(x_BLD, mask, train)
        return FeedForward(
            features=config.intermediate_size,
            activation=config.hidden_act,
            dropout=config.hidden_dropout,
            norm_epsilon=config.norm_epsilon,
            init_std=config.initializer_range,
            dtype=self.dtype,
            name="feed_forward",
        )(x_BLD, train)


class BertEncoder(nn.Module):
    """Embeddings and the first `num_layers` layers of a BERT.

    Attributes:
        config: sizes and rates of the checkpoint.
        num_layers: layers built; at most the checkpoint's.
        dtype: computation type; parameters are float32.
        remat: recompute each layer's activations in the backward pass.
        attention_fns: one function per layer from scores and mask to probabilities;
            None: masked softmax everywhere.
    """

    config: BertConfig
    num_layers: int
    dtype: Any = jnp.float32
    remat: bool = False
    attention_fns: tuple[AttentionFn, ...] | None = None

    def setup(self) -> None:
        """Builds the parts; paths are `embeddings/...` and `layer_0/...` on."""
        # `train` (argument 3 behind self) decides what is traced, so it stays static.
        layer_class = (
            nn.remat(BertLayer, static_argnums=(3,)) if self.remat else BertLayer
        )
        fns = self.attention_fns or (compute_masked_softmax,) * self.num_layers
        self.embeddings = BertEmbeddings(self.config, self.dtype, name="embeddings")
        self.layers = [
            layer_class(self.config, self.dtype, fns[i], name=f"layer_{i}")
            for i in range(self.num_layers)
        ]

    def embed(self, batch: Batch, train: bool) -> Carry:
        """Returns the carry before layer 0: `x_BLD` and `mask_BL`."""
        x_BLD = self.embeddings(batch.token_ids, batch.type_ids, train)
        return {"x_BLD": x_BLD, "mask_BL": jnp.asarray(batch.mask)}

    def run_layers(self, carry: Carry, start: int, stop: int, train: bool) -> Carry:
        """Returns the carry after layers start, ..., stop - 1."""
        x_BLD = carry["x_BLD"]
        # Every query reads the same keys, those of real tokens.
        mask_B11L = carry["mask_BL"][:, None, None, :] != 0
        for layer in self.layers[start:stop]:
            x_BLD = layer(x_BLD, mask_B11L, train)
        return {**carry, "x_BLD": x_BLD}

    def __call__(self, batch: Batch, train: bool = False) -> Carry:
        """Returns the carry after the last layer."""
        return self.run_layers(self.embed(batch, train), 0, self.num_layers, train)
