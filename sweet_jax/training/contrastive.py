"""The contrastive phase: rows of a class move together before exits are trained.

With few rows per class, the loss of the exits is near 0 after some epochs: they know
the rows, and the encoder has learned little. The loss here compares every two rows of
a batch, so that a few rows give many comparisons. SetFit (Tunstall et al. 2022) showed
what that is worth for a classifier of few rows. There, pairs of texts have a
cosine-similarity loss; here the loss is SupCon (Khosla et al. 2020, "Supervised
Contrastive Learning", equation 2).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from sweet_jax.arrays import Array
from sweet_jax.training.objectives import Member, Phase

# Divides the cosines (tau in the paper, which has 0.1).
TEMPERATURE = 0.3


def compute_contrastive_sum(
    pooled_BD: Float[Array, "B D"],
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns the weighted sum of SupCon losses of the rows.

    -1/|P(i)| sum_{p in P(i)} log (exp(s_ip / t) / sum_{a != i} exp(s_ia / t)), where
    s are cosines and P(i) are the other rows of row i's class. A row without any adds
    0, and so does a row of weight 0, with which nothing is compared.

    Args:
        pooled_BD: outputs of an exit's pooler.
        labels_B: classes.
        weights_B: weights of the rows.
    """
    num_rows, real_B = len(weights_B), weights_B > 0
    # `where`, so that NaN in a padding row never meets a factor of 0.
    x_BD = jnp.where(real_B[:, None], pooled_BD.astype(jnp.float32), 0)
    x_BD *= jax.lax.rsqrt((x_BD**2).sum(axis=1, keepdims=True) + 1e-12)
    other_BB: Bool[Array, "B B"] = real_B[None, :] & ~jnp.eye(num_rows, dtype=bool)
    alike_BB = other_BB & (labels_B[:, None] == labels_B[None, :])
    cosines_BB = jnp.where(other_BB, x_BD @ x_BD.T / TEMPERATURE, -jnp.inf)
    log_shares_BB = jnp.where(alike_BB, jax.nn.log_softmax(cosines_BB), 0)
    loss_B = -log_shares_BB.sum(axis=1) / jnp.maximum(alike_BB.sum(axis=1), 1)
    return (loss_B * weights_B).sum()


def begin_contrastive(
    member: Member, num_epochs: int, of_epochs: int, learning_rate: float
) -> Member:
    """Returns the member with a contrastive phase before its others.

    Its losses meet the same seams and have the same weights as those of the first
    phase, so that under SWEET each segment still learns from its own exit alone. It
    trains the encoder; then the exits start anew.

    Args:
        member: the member.
        num_epochs: length of the phase; 0: the member as it is.
        of_epochs: train.num_epochs, which phases give their length in percent of.
        learning_rate: of the encoder.
    """
    if not num_epochs:
        return member
    first, *others = member.phases
    phase = Phase(
        tuple(
            dataclasses.replace(objective, is_contrastive=True)
            for objective in first.objectives
        ),
        takes_turns=first.takes_turns,
        trainable=("encoder/.*",),
        steps_percent=100 * num_epochs / of_epochs,
        encoder_learning_rate=learning_rate,
    )
    first = dataclasses.replace(first, starts_exits=True)
    return dataclasses.replace(member, phases=(phase, first, *others))
