"""DeBERTa-v2 and v3 (He et al., 2021 and 2023): buckets of distances, a convolution.

Differences from DeBERTa: separate query, key and value kernels; logarithmic buckets for
far distances; the distance table may be normed; a convolution over the input of layer 0
may follow that layer (v2 only). v3 differs from v2 only in its pretraining.

Departures from Hugging Face's DebertaV2Model are those of `deberta`. The convolution
reads zeros at padding, as there, where the embeddings of padding are zero.
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
    """The config of a DeBERTa-v2 or v3.

    Attributes:
        position_buckets: buckets on either side; below 1: one for each distance.
        share_att_key: whether positions use the query and key kernels of contents.
        norm_rel_ebd: the norm of the distance table, `layer_norm` or `none`.
        conv_kernel_size: window of the convolution after layer 0; 0: none.
        conv_act: its activation, a key of `layers.ACTIVATIONS`.
    """

    position_buckets: int
    share_att_key: bool
    norm_rel_ebd: str
    conv_kernel_size: int
    conv_act: str

    def __post_init__(self) -> None:
        """Checks that the logarithmic buckets can grow.

        Raises:
            ValueError: half of the buckets already cover all distances.
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
        """Rows of the distance table on either side."""
        return self.reach if self.position_buckets < 1 else self.position_buckets

    @property
    def has_distance_norm(self) -> bool:
        """Whether the distance table is normed."""
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
    """Returns the bucket of each distance, negative for negative distances.

    The first half of the buckets have one distance each; the others have ranges that
    grow geometrically, up to distance `reach` - 1.
    """
    half = num_buckets // 2
    far = np.abs(distances)
    # In float32, as in PyTorch, because some distances are at edges of buckets. Near
    # distances are replaced below; the maximum keeps their logarithm at 0.
    ratio = np.maximum(far, half).astype(np.float32) / np.float32(half)
    steps = np.log(ratio) / np.log(np.float32((reach - 1) / half))
    steps = np.ceil(steps * np.float32(half - 1)).astype(np.int64)
    return np.where(far <= half, distances, np.sign(distances) * (half + steps))


class Convolution(nn.Module):
    """A convolution over neighbouring tokens: norm(y + act(dropout(conv(x)))).

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
            x_BLD: the input of the convolution, used at real tokens.
            y_BLD: the states that its output is added to.
            mask: True at real tokens.
            train: whether dropout is on.
        """
        config = self.config
        # A window past the last real token reads zeros, also in padded rows.
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
    """A post-norm layer with disentangled attention, optionally with a convolution.

    Attributes:
        convolved: whether a convolution over the layer's input follows the layer.
    """

    # A narrower type than in the base class, which is safe because it is never set.
    config: DebertaV2Config  # pyright: ignore[reportIncompatibleVariableOverride]
    convolved: bool = False

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[jax.Array, "B L D"],
        mask: Bool[jax.Array, "B 1 #L L"],
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

    @property
    def can_pack(self) -> bool:
        """False with the convolution, which would read tokens of other texts."""
        return super().can_pack and self.config.conv_kernel_size == 0

    def describe_layer(self, i: int) -> dict[str, Any]:
        """Returns whether the convolution follows layer i."""
        return {"convolved": i == 0 and self.config.conv_kernel_size > 0}
