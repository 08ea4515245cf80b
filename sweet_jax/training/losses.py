"""Losses per exit, kept apart until they are scalars."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from sweet_jax.arrays import Array, ExitOutput


def compute_cross_entropy_sum(
    logits_BC: Float[Array, "B C"],
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns the weighted sum of cross-entropies; rows of weight 0 add exactly 0."""
    # where, not multiplication alone: 0 * NaN of a filling row would be NaN. And before
    # the loss, not after it: a NaN logit makes NaN of the 0 that comes back.
    logits_BC = jnp.where(weights_B[:, None] > 0, logits_BC.astype(jnp.float32), 0)
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, labels_B)
    return (loss_B * weights_B).sum()


def compute_exit_losses(
    outputs: Sequence[ExitOutput],
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
) -> tuple[Float[Array, ""], ...]:
    """Returns one scalar loss sum per exit.

    Stacking the logits first would tie all backward passes together: under SWEET the
    compiled step then keeps every segment's activations alive.
    """
    return tuple(
        compute_cross_entropy_sum(output.logits_BC, labels_B, weights_B)
        for output in outputs
    )
