"""What every family of encoders is: embeddings, then layers that run in any range.

A family says which classes its parts have; the loop over the layers, rematerialisation
and the tables that layers share are here, once.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import jax.numpy as jnp
from flax import linen as nn

from sweet_jax.arrays import Batch
from sweet_jax.models.attention import AttentionFn, compute_masked_softmax

# What travels along the layers: `x_BLD`, `mask_BL`, and `shared`, what the layers read
# of tables that they share.
Carry: TypeAlias = dict[str, Any]


@runtime_checkable
class EncoderConfig(Protocol):
    """What the rest of the house may ask of any family's config."""

    @property
    def family(self) -> str:
        """Hugging Face's `model_type`."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the word table."""
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


class Encoder(nn.Module):
    """Embeddings and the first `num_layers` layers of a checkpoint.

    `run_layers(run_layers(c, 0, k), k, n)` equals `run_layers(c, 0, n)`: whoever places
    exits, seams or early stops between layers needs nothing else.

    Attributes:
        config: sizes and rates of the checkpoint.
        num_layers: layers built; at most the checkpoint's.
        dtype: computation type; parameters are float32.
        remat: recompute each layer's activations in the backward pass.
        attention_fns: one function per layer from scores and mask to probabilities;
            None: masked softmax everywhere.
        table_starts: the layers from which on a further copy of the shared tables is
            read, rising from 0.
    """

    # Of (config, dtype): token_ids, type_ids, train -> x_BLD.
    embeddings_class: ClassVar[Callable[..., nn.Module]]
    # Of (config, dtype, attention_fn): x_BLD, mask, train, *shared -> x_BLD.
    layer_class: ClassVar[Callable[..., nn.Module]]
    # Of (config): length -> shared, a tuple of arrays; None: layers share nothing.
    tables_class: ClassVar[Callable[..., nn.Module] | None] = None
    # In Hugging Face's sentence classifiers, a key of `layers.ACTIVATIONS`; our exits
    # take it under faithful_release only.
    pooler_activation: ClassVar[str] = "tanh"

    config: Any
    num_layers: int
    dtype: Any = jnp.float32
    remat: bool = False
    attention_fns: tuple[AttentionFn, ...] | None = None
    table_starts: tuple[int, ...] = (0,)

    def setup(self) -> None:
        """Builds the parts: `embeddings/...`, `layer_0/...`, `shared_0/...` on."""
        layer_class: Any = type(self).layer_class
        if self.remat:
            # `train` (argument 3 behind self) decides what is traced: it stays static.
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
        """Returns the further attributes of layer i, in families whose layers differ.

        Args:
            i: the layer's number in the checkpoint, whatever the segment it runs in.
        """
        return {}

    @nn.nowrap
    def make_final_norm(self) -> nn.Module | None:
        """Returns the norm that checkpoints have behind their last layer.

        Layers of pre-norm families leave their output without a norm, so whoever reads
        a state reads it through one: every exit makes one of its own (whence `nowrap`:
        its parameters are the exit's, not the encoder's). None: layers end in a norm.
        """
        return None

    def embed(self, batch: Batch, train: bool) -> Carry:
        """Returns the carry before layer 0.

        Raises:
            ValueError: the input is longer than the encoder's positions.
        """
        length = batch.token_ids.shape[1]
        if length > self.config.max_positions:
            raise ValueError(
                f"inputs of {length} tokens are longer than the encoder's"
                f" {self.config.max_positions} positions: lower data.max_length"
            )
        x_BLD = self.embeddings(batch.token_ids, batch.type_ids, train)
        return {"x_BLD": x_BLD, "mask_BL": jnp.asarray(batch.mask), "shared": ()}

    def run_layers(self, carry: Carry, start: int, stop: int, train: bool) -> Carry:
        """Returns the carry after layers start, ..., stop - 1."""
        x_BLD, shared = carry["x_BLD"], carry["shared"]
        # Every query reads the same keys, those of real tokens.
        mask_B11L = carry["mask_BL"][:, None, None, :] != 0
        for i in range(start, stop):
            if self.tables and i in self.table_starts:
                # From here on in place of what came through the seam.
                shared = self.tables[self.table_starts.index(i)](x_BLD.shape[1])
            x_BLD = self.layers[i](x_BLD, mask_B11L, train, *shared)
        return {**carry, "x_BLD": x_BLD, "shared": shared}

    def __call__(self, batch: Batch, train: bool = False) -> Carry:
        """Returns the carry after the last layer."""
        return self.run_layers(self.embed(batch, train), 0, self.num_layers, train)
