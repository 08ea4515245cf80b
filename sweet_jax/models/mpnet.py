"""MPNet (Song et al., 2020): a BERT without types, with T5's relative position bias.

All layers add the same bias to their scores: one number per head and bucket of
distances, from one table that the layers share.

As in Hugging Face's MPNetModel, three numbers are constants and ignore the config: the
number of buckets, the largest distance, and the padding row after which positions
start. Departure: positions count the tokens of the row (see `roberta`).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Int

from sweet_jax.arrays import Size
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.layers import make_embed
from sweet_jax.models.post_norm import Embeddings, PostNormConfig, PostNormLayer
from sweet_jax.models.shared_tables import fix_length

NUM_BUCKETS = 32
# Distances from here on share the last bucket on their side.
MAX_DISTANCE = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class MpnetConfig(PostNormConfig):
    """The config of an MPNet."""

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads."""
        return 2


def compute_buckets(distances: Int[np.ndarray, " S"]) -> Int[np.ndarray, " S"]:
    """Returns the bucket of each distance, key position minus query position.

    Half of the buckets are for keys after the query. In each half the first 8 have one
    distance each, the others have ranges that grow geometrically up to `MAX_DISTANCE`
    (Raffel et al., 2020, section 2.1).
    """
    half = NUM_BUCKETS // 2
    num_exact = half // 2
    far = np.abs(distances)
    # In float32, as in PyTorch, because 16, 32 and 64 are at edges of buckets.
    # Distances below num_exact are replaced; the maximum keeps their logarithm finite.
    ratio = np.maximum(far, 1).astype(np.float32) / np.float32(num_exact)
    steps = np.log(ratio) / np.float32(math.log(MAX_DISTANCE / num_exact))
    large = num_exact + (steps * np.float32(half - num_exact)).astype(np.int64)
    bucket = np.where(far < num_exact, far, np.minimum(large, half - 1))
    return np.where(distances > 0, half, 0) + bucket


class PositionBias(nn.Module):
    """The table of biases, spread over pairs of positions.

    Attributes:
        config: the number of heads and the standard deviation of fresh tables.
    """

    config: MpnetConfig

    @nn.compact
    def __call__(self, length: Size) -> tuple[jax.Array]:
        """Returns the bias of inputs of `length` tokens, float32 [1, H, L, L]."""
        table = make_embed(
            NUM_BUCKETS,
            self.config.num_heads,
            self.config.initializer_range,
            "position_bias",
        ).embedding
        # Buckets of 2L - 1 distances, so that no L * L constant is compiled in.
        longest = fix_length(length, self.config.max_positions)
        buckets = compute_buckets(np.arange(1 - longest, longest))
        by_distance_SH = jnp.take(table, buckets, axis=0, mode="clip")
        positions = jnp.arange(length)
        index_LM = positions[None, :] - positions[:, None] + longest - 1
        bias_LMH = jnp.take(by_distance_SH, index_LM, axis=0, mode="clip")
        return (bias_LMH.transpose(2, 0, 1)[None],)


class MpnetEncoder(Encoder):
    """Embeddings and the first layers of an MPNet."""

    embeddings_class = Embeddings
    layer_class = PostNormLayer
    tables_class = PositionBias
