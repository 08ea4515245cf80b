"""Parts that encoder families share: dense layers, norms, dropout, feed-forward.

Parameters are float32; `dtype` is the computation type of the matrix products. Norm
statistics are float32 for every `dtype`. Every part has an explicit name, because
parameter paths are API (checkpoints, conversion tables, learning-rate groups).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float


def compute_gelu(x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
    """Returns x * Phi(x) with the exact normal distribution function.

    Written with erf, as in PyTorch: `jax.nn.gelu(approximate=False)` uses erfc, which
    takes more than twice the time on CPU and differs only in the far left tail, where
    both are below 1e-6.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * jnp.asarray(0.5**0.5, x.dtype)))


def compute_gelu_tanh(x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
    """Returns the tanh approximation of GELU (`gelu_new` of Hugging Face)."""
    return jax.nn.gelu(x, approximate=True)


# Hugging Face's `hidden_act` -> function. Several names mean the same function there,
# too, written differently (`gelu_fast` rounds a constant to ten digits).
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": compute_gelu,
    "gelu_new": compute_gelu_tanh,
    "gelu_python": compute_gelu,
    "gelu_accurate": compute_gelu_tanh,
    "gelu_fast": compute_gelu_tanh,
    "gelu_pytorch_tanh": compute_gelu_tanh,
    "gelu_python_tanh": compute_gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def make_dense(
    features: int, init_std: float, dtype: Any, name: str, use_bias: bool = True
) -> nn.Dense:
    """Returns a dense layer with a normal kernel [in, out] and a zero bias, if any."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nn.initializers.normal(init_std),
        name=name,
    )


def make_embed(rows: int, features: int, init_std: float, name: str) -> nn.Embed:
    """Returns a float32 embedding table, `{name}/embedding` [rows, features]."""
    return nn.Embed(
        rows,
        features,
        embedding_init=nn.initializers.normal(init_std),
        name=name,
    )


def make_norm(
    epsilon: float, dtype: Any, name: str | None, use_bias: bool = True
) -> nn.LayerNorm:
    """Returns a layer norm whose statistics are float32."""
    # The two-pass variance: E[x^2] - E[x]^2 loses precision if |mean| is large.
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=dtype,
        use_bias=use_bias,
        use_fast_variance=False,
        name=name,
    )


class Dropout(nn.Module):
    """Zeroes entries at random, with keys from the rng collection `dropout`.

    Each entry uses 16 random bits, half of one 32-bit draw, whereas `nn.Dropout` uses
    two draws: this takes about a third of its time with threefry on CPU. The rate is
    rounded to 1/65536, and kept entries are scaled by the rounded rate, so the
    expectation is exact.

    Attributes:
        rate: share of entries set to zero, 0 <= rate < 1.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "..."], train: bool
    ) -> Float[jax.Array, "..."]:
        """Returns x with entries dropped if `train`, otherwise x."""
        if not train or self.rate == 0:
            return jnp.asarray(x)
        # Between 1 and 65535 of the 65536 values keep an entry, which fits 16 bits.
        keep = min(max(round((1 - self.rate) * 65536), 1), 65535)
        *leading, size = x.shape
        bits = jax.random.bits(
            self.make_rng("dropout"), (*leading, -(-size // 2)), jnp.uint32
        )
        # One 32-bit draw gives two neighbours along the last axis only, so that a
        # sharded leading axis is not moved; an odd size leaves one half unused.
        halves = jax.lax.bitcast_convert_type(bits, jnp.uint16)
        halves = halves.reshape(*leading, -1)[..., :size]
        return jnp.where(halves < keep, x * (65536 / keep), jnp.zeros((), x.dtype))


class FeedForward(nn.Module):
    """Post-norm feed-forward block: norm(x + dropout(down(act(up(x))))).

    Attributes:
        features: width F between the two layers.
        activation: a key of `ACTIVATIONS`.
        dropout: rate after the second layer.
        norm_epsilon: added to the variance.
        init_std: standard deviation of fresh kernels.
        dtype: computation type.
    """

    features: int
    activation: str
    dropout: float
    norm_epsilon: float
    init_std: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_BLD: Float[jax.Array, "B L D"], train: bool) -> jax.Array:
        """Returns the block's output, [B, L, D]."""
        up = make_dense(self.features, self.init_std, self.dtype, "up")
        down = make_dense(x_BLD.shape[-1], self.init_std, self.dtype, "down")
        hidden_BLF = ACTIVATIONS[self.activation](up(x_BLD))
        out_BLD = Dropout(self.dropout, name="dropout")(down(hidden_BLF), train)
        return make_norm(self.norm_epsilon, self.dtype, "norm")(x_BLD + out_BLD)
