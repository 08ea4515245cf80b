"""The base class of all encoder families: embeddings, then a stack of layers.

A family defines the classes of its parts; the loop over layers, rematerialisation and
the shared tables are implemented here.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Int

from sweet_jax.arrays import Array, Batch
from sweet_jax.models.constant_attention import ConstantHeads
from sweet_jax.models.masked_softmax import AttentionFn, compute_masked_softmax

# The state passed from layer to layer: `x_BLD`, `mask_BL`, and `shared`, the arrays
# from the shared tables.
Carry: TypeAlias = dict[str, Any]


@runtime_checkable
class EncoderConfig(Protocol):
    """The attributes that the config of every family has."""

    @property
    def family(self) -> str:
        """Hugging Face's `model_type`."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the word embedding table."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width D."""
        ...

    @property
    def num_layers(self) -> int:
        """Layers of the checkpoint."""
        ...

    @property
    def num_heads(self) -> int:
        """Heads H of each layer."""
        ...

    @property
    def max_positions(self) -> int:
        """Longest input in tokens."""
        ...

    @property
    def initializer_range(self) -> float:
        """Standard deviation of fresh kernels and tables."""
        ...


def number_texts(mask_BL: Int[Array, "B L"]) -> Int[jax.Array, "B L"]:
    """Returns the number of each token's text in its packed row, 1 and up; 0: padding.

    Args:
        mask_BL: the mask of a packed batch: a text starts wherever it is 1.
    """
    return jnp.where(mask_BL > 0, jnp.cumsum(mask_BL == 1, axis=1), 0)


class Encoder(nn.Module):
    """Embeddings and the first `num_layers` layers of a checkpoint.

    `run_layers(run_layers(c, 0, k), k, n)` equals `run_layers(c, 0, n)`, so that exits,
    seams and early stops can be placed between any two layers.

    Attributes:
        config: sizes and rates of the checkpoint.
        num_layers: layers built; at most the checkpoint's.
        dtype: computation type; parameters are float32.
        remat: recompute each layer's activations in the backward pass.
        attention_fns: one function per layer from scores and mask to probabilities, or
            the layer's constant heads; None: masked softmax everywhere.
        table_starts: the layers at which each copy of the shared tables begins to be
            read, increasing from 0.
        is_packed: whether batches are packed (see `Batch`). Then a query reads the
            keys of its own text only, and positions count from the start of the text.
    """

    # Made from (config, dtype); maps token_ids, type_ids, train, positions to x_BLD;
    # positions count from 0, and are None if each row is one text.
    embeddings_class: ClassVar[Callable[..., nn.Module]]
    # Made from (config, dtype, attention_fn); maps x_BLD, mask, train, *shared to
    # x_BLD.
    layer_class: ClassVar[Callable[..., nn.Module]]
    # Made from (config); maps a length to `shared`, a tuple of arrays; None: layers
    # share no tables.
    tables_class: ClassVar[Callable[..., nn.Module] | None] = None
    # The pooler's activation in Hugging Face's classifiers, a key of
    # `layers.ACTIVATIONS`; our exits use it only under faithful_release.
    pooler_activation: ClassVar[str] = "tanh"

    config: Any
    num_layers: int
    dtype: Any = jnp.float32
    remat: bool = False
    attention_fns: tuple[AttentionFn | ConstantHeads, ...] | None = None
    table_starts: tuple[int, ...] = (0,)
    is_packed: bool = False

    def setup(self) -> None:
        """Builds the parts at `embeddings/...`, `layer_0/...`, `shared_0/...`."""
        layer_class: Any = type(self).layer_class
        if self.remat:
            # `train` (argument 3 after self) decides what is traced, so it is static.
            layer_class = nn.remat(layer_class, static_argnums=(3,))
        fns = self.attention_fns or (compute_masked_softmax,) * self.num_layers
        embeddings_class: Any = type(self).embeddings_class
        self.embeddings = embeddings_class(self.config, self.dtype, name="embeddings")
        self.layers = [
            layer_class(
                self.config,
                self.dtype,
                fns[i],
                **self.describe_layer(i),
                name=f"layer_{i}",
            )
            for i in range(self.num_layers)
        ]
        tables_class: Any = type(self).tables_class
        self.tables = [
            tables_class(self.config, name=f"shared_{i}")
            for i in range(len(self.table_starts) if tables_class else 0)
        ]

    def describe_layer(self, i: int) -> dict[str, Any]:
        """Returns additional attributes of layer i, in families whose layers differ.

        Args:
            i: the layer's number in the checkpoint.
        """
        return {}

    @property
    def can_pack(self) -> bool:
        """Whether a text of a packed row gets the states that it gets alone.

        Families with a layer that is neither attention nor computed token by token
        override it. Attention that does not read the mask cannot be packed either.
        """
        return self.attention_fns is None and not self.is_packed

    @nn.nowrap
    def make_final_norm(self) -> nn.Module | None:
        """Returns the norm that checkpoints have after their last layer, or None.

        The layers of pre-norm families do not norm their output, so every exit owns a
        norm (hence `nowrap`: its parameters belong to the exit, not the encoder). None:
        layers end in a norm.
        """
        return None

    def embed(self, batch: Batch, train: bool) -> Carry:
        """Returns the carry before layer 0.

        Raises:
            ValueError: the input has more tokens than the encoder has positions.
        """
        length, mask_BL = batch.token_ids.shape[1], jnp.asarray(batch.mask)
        positions_BL = None
        if self.is_packed:  # Longer than any text of it: the host has checked texts.
            positions_BL = jnp.maximum(mask_BL, 1) - 1
        elif length > self.config.max_positions:
            raise ValueError(
                f"inputs of {length} tokens are longer than the encoder's"
                f" {self.config.max_positions} positions: lower data.max_length"
            )
        x_BLD = self.embeddings(batch.token_ids, batch.type_ids, train, positions_BL)
        return {"x_BLD": x_BLD, "mask_BL": mask_BL, "shared": ()}

    def run_layers(self, carry: Carry, start: int, stop: int, train: bool) -> Carry:
        """Returns the carry after layers start, ..., stop - 1."""
        x_BLD, shared = carry["x_BLD"], carry["shared"]
        if self.is_packed:
            text_BL = number_texts(carry["mask_BL"])
            # Padding reads padding, so that no query is without a key.
            mask = text_BL[:, None, :, None] == text_BL[:, None, None, :]
        else:  # Every query reads the same keys: those of real tokens.
            mask = carry["mask_BL"][:, None, None, :] != 0
        for i in range(start, stop):
            if self.tables and i in self.table_starts:
                # Replaces the arrays that came through the seam.
                shared = self.tables[self.table_starts.index(i)](x_BLD.shape[1])
            x_BLD = self.layers[i](x_BLD, mask, train, *shared)
        return {**carry, "x_BLD": x_BLD, "shared": shared}

    def __call__(self, batch: Batch, train: bool = False) -> Carry:
        """Returns the carry after the last layer."""
        return self.run_layers(self.embed(batch, train), 0, self.num_layers, train)
