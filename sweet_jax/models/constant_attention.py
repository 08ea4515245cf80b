"""Attention by constants (PAPA; Hassid et al., 2022), in place of softmax of scores.

A constant head reads position b from position a with a weight that is the same for all
inputs, for example the average of the encoder's own probabilities. Only the mask
depends on the input: weights of pairs with padding are set to zero, and the others are
divided by their sum.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from sweet_jax.models.attention import AttentionFn, compute_masked_softmax

# Smallest divisor of a row of weights, as in the released code.
SMALLEST_SUM = 1e-12


def compute_constant_probabilities(
    constants_HLL: Float[jax.Array, "H S S"], mask: Bool[jax.Array, "B #H #L L"]
) -> Float[jax.Array, "B H L L"]:
    """Returns the constants at pairs of real tokens, divided by their sum over keys.

    Rows of queries at padding are zero, and so are rows without any weight.

    Args:
        constants_HLL: a weight of each query and key position, at least 0; inputs
            shorter than S read the upper left corner.
        mask: True where a key may be read, as layers get it: [B, 1, 1, L], or with a
            window [B, 1, L, L]. Real tokens need not come first.

    Raises:
        ValueError: the input has more than S tokens.
    """
    length, longest = mask.shape[-1], constants_HLL.shape[-1]
    if length > longest:
        raise ValueError(
            f"inputs of {length} tokens are longer than the constants of attention,"
            f" which have {longest} positions: lower data.max_length"
        )
    # A key mask only says which keys are real. Transposed it says which queries are,
    # and a window is its own transpose.
    pairs = mask & mask.swapaxes(-1, -2)
    weights_BHLL = jnp.where(pairs, constants_HLL[None, :, :length, :length], 0.0)
    sums_BHL1 = weights_BHLL.sum(axis=-1, keepdims=True)
    return weights_BHLL / jnp.maximum(sums_BHL1, SMALLEST_SUM)


def mix_attention(
    gates_H: Float[jax.Array, " H"], constants_HLL: Float[jax.Array, "H S S"]
) -> AttentionFn:
    """Returns a function to probabilities g softmax(scores) + (1 - g) constants.

    All scores are computed, so gates may be trained and mapped over.

    Args:
        gates_H: the share g of each head's own attention, from 0 to 1.
        constants_HLL: see `compute_constant_probabilities`.
    """

    def attend(
        scores_BHLM: Float[jax.Array, "B H L M"], mask: Bool[jax.Array, "B #H #L M"]
    ) -> Float[jax.Array, "B H L M"]:
        own_BHLM = compute_masked_softmax(scores_BHLM, mask)
        constant_BHLM = compute_constant_probabilities(constants_HLL, mask)
        gates_1H11 = gates_H[None, :, None, None]
        return gates_1H11 * own_BHLM + (1 - gates_1H11) * constant_BHLM

    return attend
