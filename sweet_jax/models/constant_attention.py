"""Attention by constants (PAPA; Hassid et al., 2022), in place of softmax of scores.

A constant head reads position b from position a with a weight that is the same for all
inputs, for example the average of the encoder's own probabilities. Only the mask
depends on the input: weights of pairs with padding are set to zero, and the others are
divided by their sum.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sweet_jax.arrays import Params, Size
from sweet_jax.models.masked_softmax import AttentionFn, compute_masked_softmax

# Smallest divisor of a row of weights, as in the released code.
SMALLEST_SUM = 1e-12


@dataclasses.dataclass(frozen=True)
class ConstantHeads:
    """Heads of a layer that are constant, as an entry of `Encoder.attention_fns`.

    They compute no queries, keys or scores. Their constants are a parameter of the
    layer, `attention/constants` [heads, length, length].

    Attributes:
        heads: their numbers, increasing.
        length: positions of the constants, the longest input.
        attention_fn: maps the scores of the layer's other heads to probabilities.
    """

    heads: tuple[int, ...]
    length: int
    attention_fn: AttentionFn = compute_masked_softmax

    def find_others(self, num_heads: int) -> tuple[int, ...]:
        """Returns the layer's other heads.

        Raises:
            ValueError: the numbers of heads do not increase, or are not below
                `num_heads`.
        """
        others = tuple(i for i in range(num_heads) if i not in self.heads)
        if sorted({*self.heads, *others}) != list(range(num_heads)) or list(
            self.heads
        ) != sorted(set(self.heads)):
            raise ValueError(
                f"constant heads {self.heads} must be increasing numbers of heads,"
                f" from 0 to {num_heads - 1}"
            )
        return others


def place_constants(
    heads: Sequence[Sequence[int]], length: int
) -> tuple[AttentionFn | ConstantHeads, ...]:
    """Returns `Encoder.attention_fns` of an encoder with constant heads.

    Args:
        heads: the numbers of each layer's constant heads; none: an ordinary layer.
        length: positions of the constants.
    """
    return tuple(
        ConstantHeads(tuple(layer), length) if len(layer) else compute_masked_softmax
        for layer in heads
    )


def insert_constants(
    encoder: Params,
    constants_NHLL: Float[np.ndarray, "N H L L"],
    heads: Sequence[Sequence[int]],
) -> Params:
    """Returns an encoder's parameters with the constants of its constant heads.

    Args:
        encoder: parameters of an encoder without constants.
        constants_NHLL: constants of all layers and heads.
        heads: the numbers of each layer's constant heads.
    """
    inserted = dict(encoder)
    for i, layer in enumerate(heads):
        if len(layer):
            part = encoder[f"layer_{i}"]
            constants = np.asarray(constants_NHLL[i, list(layer)], np.float32)
            attention = {**part["attention"], "constants": constants}
            inserted[f"layer_{i}"] = {**part, "attention": attention}
    return inserted


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
    corner_HLL = _take_corner(constants_HLL, mask.shape[-1])
    # A key mask only says which keys are real. Transposed it says which queries are,
    # and a window is its own transpose.
    pairs = mask & mask.swapaxes(-1, -2)
    weights_BHLL = jnp.where(pairs, corner_HLL[None], 0.0)
    sums_BHL1 = weights_BHLL.sum(axis=-1, keepdims=True)
    return weights_BHLL / jnp.maximum(sums_BHL1, SMALLEST_SUM)


def compute_constant_context(
    constants_HLL: Float[jax.Array, "H S S"],
    mask_BL: Bool[jax.Array, "B L"],
    value_BLHK: Float[jax.Array, "B L H K"],
) -> Float[jax.Array, "B L H K"]:
    """Returns the values averaged by constants, without probabilities of each row.

    Padded values are zeroed instead, so that all rows are multiplied by the same
    matrix. For key masks without a window, and where probabilities have no dropout.

    Args:
        constants_HLL: see `compute_constant_probabilities`.
        mask_BL: True at real tokens.
        value_BLHK: the values.
    """
    corner_HLL = _take_corner(constants_HLL, mask_BL.shape[-1])
    real_BL11 = mask_BL[:, :, None, None]
    values_BLHK = jnp.where(real_BL11, value_BLHK, 0)
    context_BLHK = jnp.einsum(
        "HLM,BMHK->BLHK", corner_HLL.astype(value_BLHK.dtype), values_BLHK
    )
    sums_BLH = jnp.einsum("HLM,BM->BLH", corner_HLL, mask_BL.astype(jnp.float32))
    shares_BLH = jnp.where(
        mask_BL[:, :, None], 1 / jnp.maximum(sums_BLH, SMALLEST_SUM), 0.0
    )
    return context_BLHK * shares_BLH[..., None].astype(value_BLHK.dtype)


def _take_corner(
    constants_HLL: Float[jax.Array, "H S S"], length: Size
) -> Float[jax.Array, "H L L"]:
    longest = constants_HLL.shape[-1]
    if length > longest:
        raise ValueError(
            f"inputs of {length} tokens are longer than the constants of attention,"
            f" which have {longest} positions: lower data.max_length"
        )
    return constants_HLL[:, :length, :length]


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
