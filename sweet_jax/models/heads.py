"""Dense layers to attention heads, of which some may be left out.

Which heads are computed is static: the columns of the others are never read.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float


def take_heads(
    x: Float[jax.Array, "..."], heads: Sequence[int], axis: int
) -> Float[jax.Array, "..."]:
    """Returns some heads of x along `axis`, in the given order.

    Static slices, because the gradient of a gather is a scatter, which is slow on CPU.
    """
    if list(heads) == list(range(x.shape[axis])):
        return x
    if not heads:
        return jax.lax.slice_in_dim(x, 0, 0, axis=axis)
    parts = [
        jax.lax.slice_in_dim(x, run.start, run[-1] + 1, run.step, axis)
        for run in _find_runs(heads)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)


def merge_heads(
    x: Float[jax.Array, "..."],
    others: Float[jax.Array, "..."],
    heads: Sequence[int],
    axis: int,
) -> Float[jax.Array, "..."]:
    """Returns both along `axis`, where `others` are the heads of these numbers."""
    total = x.shape[axis] + len(heads)
    joined = [i for i in range(total) if i not in heads] + list(heads)
    places = [joined.index(i) for i in range(total)]
    return take_heads(jnp.concatenate([x, others], axis), places, axis)


def _find_runs(heads: Sequence[int]) -> list[range]:
    """Returns the heads as few increasing ranges."""
    runs: list[range] = []
    for head in heads:
        step = head - runs[-1][-1] if runs else 0
        if step > 0 and (len(runs[-1]) == 1 or step == runs[-1].step):
            runs[-1] = range(runs[-1].start, head + 1, step)
        else:
            runs.append(range(head, head + 1))
    return runs


class HeadDense(nn.Module):
    """A dense layer whose outputs are heads.

    Its parameters, `kernel` [in, features] and `bias` [features], are those of all
    heads, whichever of them are computed.

    Attributes:
        features: the outputs of all heads together.
        num_heads: H; must divide `features`.
        init_std: standard deviation of fresh kernels.
        dtype: computation type.
        use_bias: whether a bias is added.
    """

    features: int
    num_heads: int
    init_std: float
    dtype: Any = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "*rows D"], heads: Sequence[int]
    ) -> Float[jax.Array, "*rows G K"]:
        """Returns the outputs of the G given heads, whose numbers increase."""
        head_dim = self.features // self.num_heads

        def take_columns(columns: jax.Array) -> jax.Array:
            if len(heads) == self.num_heads:
                return columns
            by_head = columns.reshape(*columns.shape[:-1], self.num_heads, head_dim)
            taken = take_heads(by_head, heads, columns.ndim - 1)
            return taken.reshape(*columns.shape[:-1], len(heads) * head_dim)

        normal = nn.initializers.normal(self.init_std)
        kernel = self.param("kernel", normal, (x.shape[-1], self.features))
        kernel = take_columns(jnp.asarray(kernel, self.dtype))
        y = jnp.dot(x.astype(self.dtype), kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            bias = take_columns(jnp.asarray(bias, self.dtype))
            y = y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
        return y.reshape(*y.shape[:-1], len(heads), head_dim)
