"""Learning to exit (LTE): each exit predicts whether its own prediction is correct.

One head per exit is trained on "argmax z_i = y" beside the classifier, and its score
u_i is a criterion like confidence (Xin et al., 2021, BERxiT, with one head for all
exits; the paper's released code has one per exit, as here). The head is a layer of the
exit, in `models.exit_heads`; its loss and the scaling of its scores are here.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from sweet_jax.arrays import Array, ExitOutput, LogitBank


def compute_lte_targets(
    logits_BC: Float[Array, "B C"], labels_B: Int[Array, " B"]
) -> Float32[Array, " B"]:
    """Returns 1 where the exit's prediction is the label, else 0; has no gradient."""
    # An argmax has no gradient anyway; the stop makes the intention explicit.
    predictions_B = jnp.argmax(jax.lax.stop_gradient(logits_BC), axis=-1)
    return (predictions_B == labels_B).astype(jnp.float32)


def compute_squared_error_sum(
    lte_B: Float[Array, " B"],
    targets_B: Float[Array, " B"],
    weights_B: Float[Array, " B"],
) -> Float[Array, ""]:
    """Returns the weighted sum of squared errors; rows of weight 0 add exactly 0."""
    # Masked before the square: otherwise a NaN in a padding row would make the gradient
    # NaN, as for cross-entropies.
    errors_B = jnp.where(weights_B > 0, lte_B - targets_B, 0)
    return (errors_B**2 * weights_B).sum()


def compute_lte_losses(
    outputs: Sequence[ExitOutput],
    labels_B: Int[Array, " B"],
    weights_B: Float[Array, " B"],
) -> tuple[Float[Array, ""], ...]:
    """Returns one scalar loss sum per exit, or () if exits have no such head.

    The squared error trains the exit's pooler and its segment as well as the head, as
    in the released code; seams stop its gradient like that of cross-entropies.
    """
    return tuple(
        compute_squared_error_sum(
            output.lte_B, compute_lte_targets(output.logits_BC, labels_B), weights_B
        )
        for output in outputs
        if output.lte_B is not None
    )


def fit_lte_ranges(bank: LogitBank) -> Float32[np.ndarray, "E 2"] | None:
    """Returns each exit's lowest and highest score on the rows of `bank`.

    Scores of different heads have different ranges, but one threshold is compared with
    all of them. Pass only the rows to fit on: calibration part 0, or under
    faithful_release all test rows.

    Returns:
        None if the bank has no learning-to-exit scores.

    Raises:
        ValueError: the bank has no row of positive weight, or a score is not finite.
    """
    if bank.lte is None:
        return None
    lte_NE = bank.lte[bank.weights > 0]
    if not len(lte_NE):
        raise ValueError(
            "no calibration rows to fit the range of learning-to-exit scores on: raise"
            " data.calibration_examples"
        )
    broken_E = ~np.isfinite(lte_NE).all(axis=0)
    if broken_E.any():
        raise ValueError(
            f"learning-to-exit scores of exits {np.flatnonzero(broken_E).tolist()} are"
            " not finite: lower the learning rates or use encoder.dtype=float32"
        )
    return np.stack([lte_NE.min(axis=0), lte_NE.max(axis=0)], 1).astype(np.float32)


def scale_lte(
    lte_NE: Float[np.ndarray, "N E"], ranges_E2: Float32[np.ndarray, "E 2"]
) -> Float32[np.ndarray, "N E"]:
    """Returns clip((u - min) / (max - min), 0, 1) per exit.

    A head with the same score on all rows of the fit has no information: its scaled
    score is always 0, so that rows leave at its exit only at threshold 0. (The released
    code divides by zero there.)
    """
    # float64: with a tiny span the quotient may overflow float32.
    low_E, high_E = np.asarray(ranges_E2, np.float64).T
    span_E = high_E - low_E
    scaled_NE = (lte_NE - low_E[None]) / np.where(span_E > 0, span_E, np.inf)[None]
    return np.clip(scaled_NE, 0, 1).astype(np.float32)


def trace_scaled_lte(
    lte_NE: Float[jax.Array, "N E"], ranges_E2: Float[Array, "E 2"]
) -> Float[jax.Array, "N E"]:
    """Computes `scale_lte` in float32, inside programs that jax traces."""
    low_E, high_E = jnp.asarray(ranges_E2).T
    span_E = jnp.where(high_E > low_E, high_E - low_E, jnp.inf)
    return jnp.clip((lte_NE - low_E[None]) / span_E[None], 0, 1)
