"""Attention probabilities from scores, the step of attention that can be replaced."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

# (scores_BHLM float32, mask broadcastable to it, True where a key may be read)
# -> probabilities_BHLM float32.
AttentionFn: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


def compute_masked_softmax(
    scores_BHLM: Float[jax.Array, "B H L M"], mask: Bool[jax.Array, "B #H #L M"]
) -> Float[jax.Array, "B H L M"]:
    """Returns softmax over the keys where `mask` is True.

    The fill is finfo.min, not -inf: a row without any readable key then becomes
    uniform instead of NaN, and passes no gradient.
    """
    lowest = jnp.finfo(scores_BHLM.dtype).min
    return jax.nn.softmax(jnp.where(mask, scores_BHLM, lowest), axis=-1)
