"""ModernBERT (Warner et al., 2024): pre-norm layers, rotary positions, gated units.

A block norms the state only for its own input and adds its output, so the state itself
is never normed: exits read it through the final norm. Most layers are local: a token
attends only to tokens within a window.

Layers and norms have no bias, as in all published checkpoints. Departures from Hugging
Face's ModernBertModel: the final norm belongs to the exits, there may be fewer layers
than in the checkpoint, inputs longer than `max_position_embeddings` are refused, and a
tokenizer's type ids are ignored (there is no table for them).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from sweet_jax.arrays import Array, Size
from sweet_jax.models.attention import HeadAttention, compute_scores
from sweet_jax.models.constant_attention import ConstantHeads
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.layers import (
    ACTIVATIONS,
    Dropout,
    make_dense,
    make_embed,
    make_norm,
)
from sweet_jax.models.masked_softmax import AttentionFn, compute_masked_softmax
from sweet_jax.models.rotary import rotate

# Hugging Face's names of the two kinds of layers.
GLOBAL, LOCAL = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernbertConfig:
    """The config of a ModernBERT.

    Attributes:
        family: Hugging Face's `model_type`.
        vocab_size: rows of the word table.
        hidden_size: width D.
        num_layers: layers of the checkpoint.
        num_heads: heads H of each layer.
        intermediate_size: feed-forward width F, after the gate.
        hidden_act: a key of `layers.ACTIVATIONS`.
        embedding_dropout: rate after the embeddings.
        attention_dropout: rate on attention probabilities and after their block.
        mlp_dropout: rate between the feed-forward layers.
        max_positions: longest input in tokens.
        layer_types: `GLOBAL` or `LOCAL`, for each layer.
        global_theta: base of the rotary frequencies in global layers.
        local_theta: base of the rotary frequencies in local layers.
        local_attention: width of the window in tokens, both sides together.
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
    embedding_dropout: float
    attention_dropout: float
    mlp_dropout: float
    max_positions: int
    layer_types: tuple[str, ...]
    global_theta: float
    local_theta: float
    local_attention: int
    norm_epsilon: float
    initializer_range: float


def make_window(length: Size, reach: int) -> Bool[jax.Array, "1 1 L L"]:
    """Returns True where a key is at most `reach` tokens away from the query."""
    positions = jnp.arange(length)
    distances = jnp.abs(positions[:, None] - positions[None, :])
    return (distances <= reach)[None, None]


class ModernbertEmbeddings(nn.Module):
    """Normed word embeddings; the layers add positions, and type ids are unused.

    Attributes:
        config: sizes and rates.
        dtype: type of the output; the norm is float32.
    """

    config: ModernbertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "B L"],
        type_ids: Int[Array, "B L"],
        train: bool,
        positions: Int[Array, "B L"] | None = None,
    ) -> jax.Array:
        """Returns [B, L, D]; rotary scores need no positions that restart per text."""
        config = self.config
        words = make_embed(
            config.vocab_size, config.hidden_size, config.initializer_range, "word"
        )
        norm = make_norm(config.norm_epsilon, self.dtype, "norm", use_bias=False)
        x_BLD = norm(words(token_ids))
        return Dropout(config.embedding_dropout, name="dropout")(x_BLD, train)


class RotaryAttention(HeadAttention, kw_only=True):
    """Pre-norm self-attention block: x + dropout(output(attend(norm(x)))).

    Attributes:
        norm_epsilon: added to the variance.
        theta: base of the rotary frequencies.
        has_norm: whether x is normed; False if it is normed already.
    """

    norm_epsilon: float
    theta: float
    has_norm: bool

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B 1 #L L"],
        train: bool,
    ) -> jax.Array:
        """Returns the block's output, [B, L, D]; keys are read where `mask` is True."""
        features, dynamic = x_BLD.shape[-1], self.dynamic_heads
        normed_BLD = x_BLD
        if self.has_norm:
            norm = make_norm(self.norm_epsilon, self.dtype, "norm", use_bias=False)
            normed_BLD = norm(x_BLD)
        # One kernel, as in checkpoints: first all queries, then keys, then values.
        numbers = (*dynamic, *(self.num_heads + head for head in dynamic))
        numbers += tuple(range(2 * self.num_heads, 3 * self.num_heads))
        qkv = self.make_heads(features, "qkv", 3, use_bias=False)(normed_BLD, numbers)
        query, key, value = jnp.split(qkv, (len(dynamic), 2 * len(dynamic)), axis=2)
        scores_BGLM = compute_scores(rotate(query, self.theta), rotate(key, self.theta))
        output = self.make_map(features, "output", use_bias=False)
        out_BLD = Dropout(self.attention_dropout, name="dropout")(
            output(self.attend(scores_BGLM, value, mask, train)), train
        )
        return x_BLD + out_BLD


class GatedFeedForward(nn.Module):
    """Pre-norm gated block (GeGLU): x + down(dropout(act(a) * b)), a, b = up(norm(x)).

    Attributes:
        config: sizes and rates.
        dtype: computation type.
    """

    config: ModernbertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BLD: Float[jax.Array, "B L D"], train: bool) -> jax.Array:
        """Returns the block's output, [B, L, D]."""
        config = self.config

        def make_map(width: int, name: str) -> nn.Dense:
            std = config.initializer_range
            return make_dense(width, std, self.dtype, name, use_bias=False)

        norm = make_norm(config.norm_epsilon, self.dtype, "norm", use_bias=False)
        # One kernel, as in checkpoints: first the activation's input, then the gate.
        up = make_map(2 * config.intermediate_size, "up")
        hidden_BLF, gate_BLF = jnp.split(up(norm(x_BLD)), 2, axis=-1)
        hidden_BLF = ACTIVATIONS[config.hidden_act](hidden_BLF) * gate_BLF
        hidden_BLF = Dropout(config.mlp_dropout, name="dropout")(hidden_BLF, train)
        return x_BLD + make_map(x_BLD.shape[-1], "down")(hidden_BLF)


class ModernbertLayer(nn.Module):
    """Attention block, then gated feed-forward block.

    Attributes:
        config: sizes and rates.
        dtype: computation type.
        attention_fn: maps scores and mask to probabilities.
        layer_type: `GLOBAL` or `LOCAL`.
        is_first: whether the attention has no norm, as after the embeddings' norm.
    """

    config: ModernbertConfig
    dtype: Any = jnp.float32
    attention_fn: AttentionFn | ConstantHeads = compute_masked_softmax
    layer_type: str = GLOBAL
    is_first: bool = False

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B #H #L L"],
        train: bool,
    ) -> jax.Array:
        """Returns the layer's output, [B, L, D]; keys are read where `mask` is True."""
        config = self.config
        is_local = self.layer_type == LOCAL
        if is_local:
            # Half the window on each side, not counting the token itself.
            mask = mask & make_window(x_BLD.shape[1], config.local_attention // 2)
        x_BLD = RotaryAttention(
            num_heads=config.num_heads,
            attention_dropout=config.attention_dropout,
            init_std=config.initializer_range,
            norm_epsilon=config.norm_epsilon,
            theta=config.local_theta if is_local else config.global_theta,
            has_norm=not self.is_first,
            dtype=self.dtype,
            attention_fn=self.attention_fn,
            name="attention",
        )(x_BLD, mask, train)
        return GatedFeedForward(config, self.dtype, name="feed_forward")(x_BLD, train)


class ModernbertEncoder(Encoder):
    """Embeddings and the first layers of a ModernBERT."""

    embeddings_class = ModernbertEmbeddings
    layer_class = ModernbertLayer

    def describe_layer(self, i: int) -> dict[str, Any]:
        """Returns whether layer i is local, and whether it is the first."""
        return {"layer_type": self.config.layer_types[i], "is_first": i == 0}

    @nn.nowrap
    def make_final_norm(self) -> nn.Module:
        """Returns the norm that every exit applies to the state."""
        return make_norm(self.config.norm_epsilon, self.dtype, None, use_bias=False)
