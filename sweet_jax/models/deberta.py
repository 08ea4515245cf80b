"""DeBERTa (He et al., 2021): a post-norm encoder with disentangled attention.

All layers read one table of relative distances. It has a row for each distance within
`reach` on either side; larger distances share the outermost row (section 3.1, equation
3).

Departures from Hugging Face's DebertaModel: inputs have at most `num_positions` tokens,
even without a position table; states of padding, which are never read, are not set to
zero after the embeddings, and padding tokens attend like all others. As there, there is
no enhanced mask decoder.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Int

from sweet_jax.arrays import Size
from sweet_jax.models.bert import BertConfig
from sweet_jax.models.disentangled import PackedAttention, find_rows
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.layers import make_embed, make_norm
from sweet_jax.models.post_norm import Embeddings, PostNormLayer
from sweet_jax.models.shared_tables import fix_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebertaConfig(BertConfig):
    """The config of a DeBERTa.

    Attributes:
        max_relative_positions: reach of distances; below 1: `num_positions`.
        position_biased_input: whether embeddings also add absolute positions.
    """

    max_relative_positions: int
    position_biased_input: bool

    @property
    def has_position_table(self) -> bool:
        """Whether embeddings add a row for each absolute position."""
        return self.position_biased_input

    @property
    def reach(self) -> int:
        """The number of distances on either side that have a row of their own."""
        if self.max_relative_positions < 1:
            return self.num_positions
        return self.max_relative_positions

    @property
    def span(self) -> int:
        """Rows of the distance table on either side."""
        return self.reach

    @property
    def has_distance_norm(self) -> bool:
        """Whether the distance table is normed."""
        return False

    def compute_buckets(
        self, distances: Int[np.ndarray, " S"]
    ) -> Int[np.ndarray, " S"]:
        """Returns the bucket of each distance: the distance itself."""
        return distances


class DistanceTable(nn.Module):
    """The distance table that all layers read, and its norm.

    Attributes:
        config: its size, whether it is normed, and the standard deviation of fresh
            tables.
    """

    config: DebertaConfig

    @nn.compact
    def __call__(self, length: Size) -> tuple[jax.Array, jax.Array]:
        """Returns the inputs of `disentangled` for `length` tokens.

        Returns:
            The rows that occur, float32 [R, D], and for each of the 2L - 1 distances
            its index in them, [S]. With a symbolic length, R is that of the longest.
        """
        config = self.config
        longest = fix_length(length, config.max_positions)
        table = make_embed(
            2 * config.span, config.hidden_size, config.initializer_range, "distance"
        ).embedding
        buckets = config.compute_buckets(np.arange(1 - longest, longest))
        rows_R, place_S = find_rows(buckets, config.span)
        rows_RD = jnp.take(table, rows_R, axis=0, mode="clip")
        if config.has_distance_norm:
            rows_RD = make_norm(config.norm_epsilon, jnp.float32, "norm")(rows_RD)
        # All distances, unless the length is symbolic.
        return rows_RD, jnp.asarray(place_S)[longest - length : longest + length - 1]


class DebertaLayer(PostNormLayer):
    """A post-norm layer with packed disentangled attention."""

    def get_attention_class(self) -> Callable[..., nn.Module]:
        """Returns the class of the attention block."""
        return PackedAttention


class DebertaEncoder(Encoder):
    """Embeddings and the first layers of a DeBERTa."""

    embeddings_class = Embeddings
    layer_class = DebertaLayer
    tables_class = DistanceTable
    pooler_activation = "gelu"
