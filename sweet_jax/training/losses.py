"""Losses per exit, kept separate until they are scalars."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from sweet_jax.arrays import Array, ExitOutput
from sweet_jax.training.contrastive import compute_contrastive_sum
from sweet_jax.training.objectives import Objective


def compute_cross_entropy_sum(
    logits_BC: Float[Array, "B C"],
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns the weighted sum of cross-entropies; rows of weight 0 add exactly 0."""
    # `where`, because 0 * NaN of a padding row would be NaN. Before the loss, because
    # after it the gradient 0 would be multiplied by NaN in the backward pass.
    logits_BC = jnp.where(weights_B[:, None] > 0, logits_BC.astype(jnp.float32), 0)
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, labels_B)
    return (loss_B * weights_B).sum()


def compute_class_weights(
    labels_N: Int[np.ndarray, " N"], num_classes: int
) -> tuple[float, ...] | None:
    """Returns `balanced` weights: N / (number of classes * rows of the class).

    Their mean over the rows is 1, as in scikit-learn. A class without rows does not
    count and has weight 0.

    Returns:
        One weight per class; None if all are 1, so that the compiled step is that of a
        loss without weights.
    """
    counts_C = np.bincount(labels_N, minlength=num_classes)
    present_C = counts_C > 0
    shares_C = counts_C[present_C] * np.count_nonzero(present_C)
    weights_C = np.zeros(num_classes)
    weights_C[present_C] = len(labels_N) / shares_C
    if np.all(weights_C[present_C] == 1):
        return None
    return tuple(weights_C.tolist())


def weigh_rows(
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
    class_weights: tuple[float, ...] | None,
) -> Float[Array, " B"]:
    """Returns the weight of each row in the loss; None: that of the batch alone.

    The sum of losses is still divided by the number of real rows, not by the sum of
    these weights: gradients are then unbiased, while in a mean over weights a rare
    class would weigh less in the batches that it occurs in.
    """
    if class_weights is None:
        return weights_B
    return weights_B * jnp.asarray(class_weights, jnp.float32)[labels_B]


def compute_exit_losses(
    outputs: Sequence[ExitOutput],
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
) -> tuple[Float[Array, ""], ...]:
    """Returns one scalar loss sum per exit.

    Stacking the logits first would couple all backward passes: under SWEET the compiled
    step would then keep the activations of every segment in memory.
    """
    return tuple(
        compute_cross_entropy_sum(output.logits_BC, labels_B, weights_B)
        for output in outputs
    )


def compute_objective_losses(
    outputs: Sequence[ExitOutput],
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
    objective: Objective,
) -> tuple[Float[Array, ""], ...]:
    """Returns the loss sum of each exit that the objective minimises."""
    if objective.is_contrastive:
        return tuple(
            compute_contrastive_sum(output.pooled_BD, labels_B, weights_B)  # type: ignore[arg-type]
            for output in outputs
        )
    if objective.teacher is None:
        return compute_exit_losses(outputs, labels_B, weights_B)
    return compute_distillation_losses(outputs, objective.teacher, weights_B)


def compute_divergence_sum(
    logits_BC: Float[Array, "B C"],
    teacher_BC: Float[Array, "B C"],
    weights_B: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns the weighted sum of KL(softmax(logits) || softmax(teacher)).

    FastBERT, equation 5: the student's probabilities weight the log ratio. No gradient
    flows to the teacher; rows of weight 0 add exactly 0.
    """
    real_B1 = weights_B[:, None] > 0
    teacher_BC = jax.lax.stop_gradient(teacher_BC)
    student_BC, teacher_BC = (
        jax.nn.log_softmax(jnp.where(real_B1, x.astype(jnp.float32), 0))
        for x in (logits_BC, teacher_BC)
    )
    divergence_B = (jnp.exp(student_BC) * (student_BC - teacher_BC)).sum(axis=1)
    return (divergence_B * weights_B).sum()


def compute_distillation_losses(
    outputs: Sequence[ExitOutput], teacher: int, weights_B: Float[Array, " B"]
) -> tuple[Float[Array, ""], ...]:
    """Returns one scalar per exit: its divergence from the teacher's prediction."""
    return tuple(
        compute_divergence_sum(output.logits_BC, outputs[teacher].logits_BC, weights_B)
        for output in outputs
    )
