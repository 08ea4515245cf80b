"""Stops training when a loss, a gradient or a parameter is NaN or infinite."""

import math
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from sweet_jax.arrays import Params
from sweet_jax.training.state import StepMetrics, TrainState
from sweet_jax.trees import flatten_paths

_DIVERGED = (
    "lower optim.encoder_learning_rate or optim.exit_learning_rate, in another"
    " --workdir; the last good checkpoint stays in this one"
)


class NonFiniteError(ValueError):
    """A loss, a gradient or a parameter is NaN or infinite."""


class HostMetrics(NamedTuple):
    """The metrics of a step on the host.

    Attributes:
        losses: mean loss per exit, by kind: `loss`, and `lte_loss` if exits learn to
            exit.
        gradient_norm: norm over all parameters, before clipping.
        weight: number of rows without padding.
    """

    losses: dict[str, list[float]]
    gradient_norm: float
    weight: float


def read_metrics(step: int, metrics: StepMetrics) -> HostMetrics:
    """Reads the metrics of a step, counted from 1, from the device.

    Raises:
        NonFiniteError: a loss or the gradient is NaN or infinite.
    """
    metrics = jax.device_get(metrics)
    weight = float(metrics.weight)
    sums = {"loss": metrics.loss_sum_E, "lte_loss": metrics.lte_sum_E}
    losses = {
        name: [float(x) / max(weight, 1.0) for x in sum_E]
        for name, sum_E in sums.items()
        if sum_E is not None
    }
    for loss_E in losses.values():
        for i, loss in enumerate(loss_E):
            if not math.isfinite(loss):
                _fail_at(step, f"the loss of exit {i} is {loss}")
    gradient_norm = float(metrics.gradient_norm)
    if not math.isfinite(gradient_norm):
        _fail_at(step, f"the gradient's norm is {gradient_norm}")
    return HostMetrics(losses, gradient_norm, weight)


def check_start(params: Params) -> None:
    """Raises NonFiniteError if a parameter is not finite before the first step."""
    if name := _find_nonfinite(params):
        raise NonFiniteError(
            f"the weights contain NaN or infinity before the first step (first in"
            f" {name}): encoder.name is damaged, or its training diverged; use another"
            " encoder"
        )


def check_state(state: TrainState, step: int) -> None:
    """Raises NonFiniteError if a state on the host contains NaN or infinity.

    A step's loss is computed before its update, so it does not check the new
    parameters.
    """
    name = _find_nonfinite(state.params)
    if name is None and not all(map(_is_finite, jax.tree.leaves(state.opt_state))):
        name = "the optimiser's moments"
    if name is not None:
        raise NonFiniteError(
            f"training diverged: NaN or infinity in {name} after step {step}:"
            f" {_DIVERGED}"
        )


def _fail_at(step: int, what: str) -> NoReturn:
    """Raises NonFiniteError for a step whose losses or gradients are not finite."""
    if step == 1:  # No update yet, so the learning rate cannot be the cause.
        raise NonFiniteError(
            f"{what} at step 1, before the first update: the encoder's weights are"
            " too large for encoder.dtype, or damaged; use another encoder, or set"
            " encoder.dtype=float32, in another --workdir"
        )
    raise NonFiniteError(f"training diverged: {what} at step {step}: {_DIVERGED}")


def _find_nonfinite(params: Params) -> str | None:
    """Returns the path of the first parameter that holds NaN or infinity."""
    flat = flatten_paths(params)
    return next((path for path, leaf in flat.items() if not _is_finite(leaf)), None)


def _is_finite(leaf: Any) -> bool:
    return bool(np.isfinite(leaf).all())
