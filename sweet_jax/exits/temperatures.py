"""Temperature scaling: one positive number per exit, fitted by maximum likelihood.

The method is that of Guo et al. (2017); the paper uses it before comparing confidences
with a threshold. The released code solves this one-dimensional problem, which is convex
in 1/T, with Adam at ten learning rates; a bounded scalar solver needs only a few
evaluations.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from sweet_jax.arrays import Array, LogitBank

# Bounds of the search. If an exit classifies all rows correctly, the likelihood grows
# until T = 0, where every score saturates and no threshold separates examples; if it
# has learned nothing, the likelihood grows until T = infinity.
TEMPERATURE_RANGE = (0.1, 20.0)
# Practically no bounds, for faithful_release: 10,000 Adam steps of at most about 0.1
# from T = 1 also end near 1,000, and below 0.001 all but ties saturate in float32.
RELEASED_RANGE = (1e-3, 1e3)


def compute_nll(
    logits_NC: Float[Array, "N C"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
) -> float:
    """Returns the mean negative log-likelihood of the labels, in nats, in float64."""
    from scipy import special  # Slow to import, and serving does not call this.

    log_probs_NC = special.log_softmax(np.asarray(logits_NC, np.float64), axis=1)
    losses_N = -log_probs_NC[np.arange(len(labels_N)), labels_N]
    return float(np.average(losses_N, weights=weights_N))


def apply_temperatures(
    logits_NEC: Float[Array, "N E C"], temperatures_E: Float[Array, " E"]
) -> Float32[Array, "N E C"]:
    """Returns calibrated logits: each exit's logits divided by its temperature.

    Each row is first shifted so that its largest logit is 0, which leaves probabilities
    unchanged. Division then keeps the argmax exactly, since no negative number becomes
    0, whereas two large logits an ulp apart might become equal. Under `jit`, pass the
    temperatures as an argument: XLA replaces division by a constant with a product,
    which rounds differently.
    """
    logits_NEC = jnp.asarray(logits_NEC, jnp.float32)
    shifted_NEC = logits_NEC - logits_NEC.max(axis=-1, keepdims=True)
    return shifted_NEC / jnp.asarray(temperatures_E, jnp.float32)[None, :, None]


def fit_temperatures(
    bank: LogitBank, bounds: tuple[float, float] = TEMPERATURE_RANGE
) -> Float32[np.ndarray, " E"]:
    """Returns the temperature of each exit that minimises NLL on the rows of `bank`.

    Pass only the rows to fit on (calibration part 0). NLL on these rows is never above
    that of T = 1: if the optimum is no better, T is 1.

    With `RELEASED_RANGE` this replaces the released code's search, but it finds the
    minimum. There, Adam starts ten times from T = 1, each time with another learning
    rate, and stops at the first step after the 51st without improvement; the best of
    the ten final temperatures is kept. If the likelihood is maximal at T = 0 or
    infinity, that search ends wherever its steps end, this one at the bounds.

    Args:
        bank: the rows to fit on.
        bounds: lowest and highest temperature.

    Raises:
        ValueError: the bank has no row of positive weight.
    """
    if not np.any(bank.weights > 0):
        raise ValueError(
            "no calibration rows to fit temperatures on: raise"
            " data.calibration_examples"
        )
    return np.array(
        [_fit_temperature(bank, i, bounds) for i in range(bank.num_exits)], np.float32
    )


def _fit_temperature(
    bank: LogitBank, exit_index: int, bounds: tuple[float, float]
) -> float:
    from scipy import optimize  # Takes half a second, and serving fits nothing.

    logits_N1C = bank.logits[:, exit_index : exit_index + 1]

    def compute_objective(log_temperature: float) -> float:
        # The same rounding as at evaluation, so that the bound on NLL holds there.
        calibrated_N1C = apply_temperatures(
            logits_N1C, np.array([math.exp(log_temperature)], np.float32)
        )
        return compute_nll(calibrated_N1C[:, 0], bank.labels, bank.weights)

    # In log T the objective is not convex, but still has a single minimum.
    low, high = (math.log(t) for t in bounds)
    found = optimize.minimize_scalar(
        compute_objective,
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return math.exp(found.x) if found.fun < compute_objective(0.0) else 1.0
