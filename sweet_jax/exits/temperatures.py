"""Temperature scaling: one positive number per exit, fitted by maximum likelihood.

Guo et al. (2017), as the paper uses it before comparing confidences with a threshold.
The released code runs Adam at ten learning rates for the same one-dimensional problem,
which is convex in 1/T; a bounded scalar solver finds its optimum in a few evaluations.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int
from scipy import special

from sweet_jax.arrays import Array, LogitBank

# Where the search ends. On rows that an exit classifies without error the likelihood
# grows all the way to T = 0, where every score saturates and no threshold tells
# examples apart; on rows where it knows nothing, it grows to T = infinity.
TEMPERATURE_RANGE = (0.1, 20.0)
# Under faithful_release, as good as no bounds: Adam's 10,000 steps of at most about 0.1
# from T = 1 end near 1,000, too, and below 0.001 all but ties saturate in float32.
RELEASED_RANGE = (1e-3, 1e3)


def compute_nll(
    logits_NC: Float[Array, "N C"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"] | None = None,
) -> float:
    """Returns the mean negative log-likelihood of the labels, in nats, in float64."""
    log_probs_NC = special.log_softmax(np.asarray(logits_NC, np.float64), axis=1)
    losses_N = -log_probs_NC[np.arange(len(labels_N)), labels_N]
    return float(np.average(losses_N, weights=weights_N))


def apply_temperatures(
    logits_NEC: Float[Array, "N E C"], temperatures_E: Float[Array, " E"]
) -> Float32[Array, "N E C"]:
    """Returns calibrated logits: each exit's logits divided by its temperature.

    Each row is first shifted so that its largest logit is 0, which no probability sees.
    The argmax is then kept exactly: two logits an ulp apart may become equal when
    divided, but no negative number becomes 0. Under `jit`, pass the temperatures as an
    argument: XLA replaces division by a constant with a product, which rounds
    differently.
    """
    logits_NEC = jnp.asarray(logits_NEC, jnp.float32)
    shifted_NEC = logits_NEC - logits_NEC.max(axis=-1, keepdims=True)
    return shifted_NEC / jnp.asarray(temperatures_E, jnp.float32)[None, :, None]


def fit_temperatures(
    bank: LogitBank, bounds: tuple[float, float] = TEMPERATURE_RANGE
) -> Float32[np.ndarray, " E"]:
    """Returns the temperature of each exit that minimises NLL on the rows of `bank`.

    Pass the rows to fit on (calibration part 0); no other row has an influence. NLL on
    these rows is never above that of T = 1: where the optimum is no better, T is 1.

    With `RELEASED_RANGE` this is the released code's search in intent. It differs in
    that it finds the minimum: there, Adam starts ten times from T = 1, each with a rate
    of its own, and stops at the first step after the 51st that improves nothing; of the
    ten last temperatures the best one is kept. Where the likelihood has its maximum at
    T = 0 or infinity, such a search ends where its steps do, this one at the bounds.

    Args:
        bank: the rows of the fit.
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
        # The same rounding as at evaluation, so that the promise on NLL holds there.
        calibrated_N1C = apply_temperatures(
            logits_N1C, np.array([math.exp(log_temperature)], np.float32)
        )
        return compute_nll(calibrated_N1C[:, 0], bank.labels, bank.weights)

    # In log T the objective is not convex but still has a single valley.
    low, high = (math.log(t) for t in bounds)
    found = optimize.minimize_scalar(
        compute_objective,
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return math.exp(found.x) if found.fun < compute_objective(0.0) else 1.0
