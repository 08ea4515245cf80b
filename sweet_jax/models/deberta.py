"""DeBERTa (He et al., 2021): a post-norm encoder with disentangled attention.

All layers read one table of distances, a row for each within reach to either side;
further ones share the outermost row (section 3.1, equation 3).

Departures from Hugging Face's DebertaModel: inputs are at most `num_positions` tokens
long, also where no table of positions bounds them; states of padding, which nothing
reads, are not set to zero after the embeddings, and padding reads the tokens as all
others do. There is no enhanced mask decoder, as there.
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
    """What defines a DeBERTa.

    Attributes:
        max_relative_positions: reach of distances; below 1: `num_positions`.
        position_biased_input: whether embeddings add absolute positions, too.
    """

    max_relative_positions: int
    position_biased_input: bool

    @property
    def has_position_table(self) -> bool:
        """Whether embeddings add a row for each absolute position."""
        return self.position_biased_input

    @property
    def reach(self) -> int:
        """Distances, in tokens, that are told apart from further ones."""
        if self.max_relative_positions < 1:
            return self.num_positions
        return self.max_relative_positions

    @property
    def span(self) -> int:
        """Rows of the table of distances to either side."""
        return self.reach

    @property
    def has_distance_norm(self) -> bool:
        """Whether the table of distances goes through a norm."""
        return False

    def compute_buckets(
        self, distances: Int[np.ndarray, " S"]
    ) -> Int[np.ndarray, " S"]:
        """Returns the bucket of each distance: the distance itself."""
        return distances


class DistanceTable(nn.Module):
    """The table of distances that all layers read, and its norm.

    Attributes:
        config: its size, whether it is normed, and the spread of fresh tables.
    """

    config: DebertaConfig

    @nn.compact
    def __call__(self, length: Size) -> tuple[jax.Array, jax.Array]:
        """Returns what `disentangled` reads for inputs of `length` tokens.

        Returns:
            The rows that occur, float32 [R, D], and the place among them of each of
            the 2L - 1 distances, [S]. For a symbolic length, R is that of the longest.
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
        # All of them, unless the length is a symbol.
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
