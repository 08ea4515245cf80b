"""DeBERTa-v2 and v3 (He et al., 2021 and 2023): buckets of distances, a convolution.

Beside DeBERTa: queries, keys and values have maps of their own; far distances share
logarithmic buckets; the table of distances may be normed; layer 0 may be followed by a
convolution over its input (v2 only). v3 differs from v2 in its training, not here.

Departures from Hugging Face's DebertaV2Model are those of `deberta`. The convolution
reads zeros at padding, as there, where padding's embeddings are zero.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from sweet_jax.models.deberta import DebertaConfig, DistanceTable
from sweet_jax.models.disentangled import SeparateAttention, TiedAttention
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.layers import ACTIVATIONS, Dropout, make_norm
from sweet_jax.models.post_norm import Embeddings, PostNormLayer


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebertaV2Config(DebertaConfig):
    """What defines a DeBERTa-v2 or v3.

    Attributes:
        position_buckets: buckets to either side; below 1: one for each distance.
        share_att_key: whether contents' maps to query and key are positions', too.
        norm_rel_ebd: `layer_norm` or `none`: what the table of distances goes through.
        conv_kernel_size: tokens under the convolution after layer 0; 0: there is none.
        conv_act: its activation, a key of `layers.ACTIVATIONS`.
    """

    position_buckets: int
    share_att_key: bool
    norm_rel_ebd: str
    conv_kernel_size: int
    conv_act: str

    def __post_init__(self) -> None:
        """Checks that buckets grow.

        Raises:
            ValueError: half of the buckets reach as far as all are to reach.
        """
        if self.position_buckets > 0 and not (
            0 < self.position_buckets // 2 < self.reach - 1
        ):
            raise ValueError(
                f"position_buckets={self.position_buckets} must be at least 2, and half"
                f" of it less than {self.reach - 1}, the furthest distance (by"
                " max_relative_positions or max_position_embeddings)"
            )

    @property
    def span(self) -> int:
        """Rows of the table of distances to either side."""
        return self.reach if self.position_buckets < 1 else self.position_buckets

    @property
    def has_distance_norm(self) -> bool:
        """Whether the table of distances goes through a norm."""
        return self.norm_rel_ebd == "layer_norm"

    def compute_buckets(
        self, distances: Int[np.ndarray, " S"]
    ) -> Int[np.ndarray, " S"]:
        """Returns the bucket of each distance, query position minus key position."""
        if self.position_buckets < 1:
            return distances
        return compute_log_buckets(distances, self.position_buckets, self.reach)


def compute_log_buckets(
    distances: Int[np.ndarray, " S"], num_buckets: int, reach: int
) -> Int[np.ndarray, " S"]:
    """Returns the bucket of each distance, negative for negative ones.

    Up to half of the buckets hold one distance each; the others hold ranges that grow
    geometrically, up to distance `reach` - 1.
    """
    half = num_buckets // 2
    far = np.abs(distances)
    # In float32, as in PyTorch: some distances lie on the edges of buckets. Near ones
    # are replaced below; half keeps their logarithm at 0.
    ratio = np.maximum(far, half).astype(np.float32) / np.float32(half)
    steps = np.log(ratio) / np.log(np.float32((reach - 1) / half))
    steps = np.ceil(steps * np.float32(half - 1)).astype(np.int64)
    return np.where(far <= half, distances, np.sign(distances) * (half + steps))


class Convolution(nn.Module):
    """norm(y + act(dropout(conv(x)))), over neighbouring tokens.

    Attributes:
        config: sizes and rates.
        dtype: computation type.
    """

    config: DebertaV2Config
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        y_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B 1 1 L"],
        train: bool,
    ) -> jax.Array:
        """Returns [B, L, D].

        Args:
            x_BLD: what the convolution reads, at real tokens.
            y_BLD: what it is added to.
            mask: True at real tokens.
            train: whether dropout is on.
        """
        config = self.config
        # A window that reaches past the last token reads zeros, in a padded row, too.
        real_BLD = jnp.where(mask[:, 0, 0, :, None], x_BLD, 0)
        conv = nn.Conv(
            config.hidden_size,
            (config.conv_kernel_size,),
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(config.initializer_range),
            name="conv",
        )
        out_BLD = Dropout(config.hidden_dropout, name="dropout")(conv(real_BLD), train)
        out_BLD = ACTIVATIONS[config.conv_act](out_BLD)
        return make_norm(config.norm_epsilon, self.dtype, "norm")(y_BLD + out_BLD)


class DebertaV2Layer(PostNormLayer):
    """A post-norm layer with disentangled attention and, it may be, a convolution.

    Attributes:
        convolved: whether a convolution over the layer's input follows it.
    """

    # Narrower than the base's: nobody sets it again.
    config: DebertaV2Config  # pyright: ignore[reportIncompatibleVariableOverride]
    convolved: bool = False

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B 1 1 L"],
        train: bool,
        *shared: jax.Array,
    ) -> jax.Array:
        """Returns the layer's output, [B, L, D]; keys are read where `mask` is True."""
        y_BLD = super().__call__(x_BLD, mask, train, *shared)
        if not self.convolved:
            return y_BLD
        convolution = Convolution(self.config, self.dtype, name="convolution")
        return convolution(x_BLD, y_BLD, mask, train)

    def get_attention_class(self) -> Callable[..., nn.Module]:
        """Returns the class of the attention block."""
        return TiedAttention if self.config.share_att_key else SeparateAttention


class DebertaV2Encoder(Encoder):
    """Embeddings and the first layers of a DeBERTa-v2 or v3."""

    embeddings_class = Embeddings
    layer_class = DebertaV2Layer
    tables_class = DistanceTable

    def describe_layer(self, i: int) -> dict[str, Any]:
        """Returns whether the convolution follows layer i."""
        return {"convolved": i == 0 and self.config.conv_kernel_size > 0}
