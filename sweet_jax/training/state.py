"""The train state and the train step of an objective."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Float, Int, PRNGKeyArray

from sweet_jax.arrays import Array, Batch, Params
from sweet_jax.exits.learned import compute_lte_losses
from sweet_jax.training.losses import (
    compute_exit_losses,
    compute_objective_losses,
    weigh_rows,
)
from sweet_jax.training.objectives import Objective


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        step: number of steps done, over all phases.
        params: float32 parameters.
        opt_state: the phase's optimiser state.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any


class StepMetrics(NamedTuple):
    """Sums of a step; the reader divides them by the weight.

    Attributes:
        loss_sum_E: sum of cross-entropies per exit, whatever the objective minimises,
            and without class weights.
        weight: number of rows without padding.
        gradient_norm: norm over all parameters, before clipping.
        lte_sum_E: sum of squared errors of learning to exit, per exit; None if exits do
            not learn to exit.
    """

    loss_sum_E: Float[Array, " E"]
    weight: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    lte_sum_E: Float[Array, " E"] | None = None


class _LossSums(NamedTuple):
    """Sums over rows, one scalar per exit; `lte` is () without learning to exit."""

    cross_entropy: tuple[Array, ...]
    lte: tuple[Array, ...]


def make_train_step(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    accumulate_steps: int = 1,
    class_weights: tuple[float, ...] | None = None,
) -> Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, StepMetrics]]:
    """Returns the pure step (state, batch, key) -> (state, metrics), not yet jitted.

    Args:
        model: a MultiExitClassifier.
        objective: static, so that each one compiles once.
        optimizer: the phase's optimiser.
        accumulate_steps: number of parts that the batch is split into; except for
            dropout the result is that of the whole batch, because the loss is divided
            by the total weight.
        class_weights: weight of each class in the loss, with a mean of 1 over training
            rows; None: 1. Metrics, and the loss of learning to exit, have none.
    """
    learning = [i for i, scale in enumerate(objective.exit_scale) if scale]

    def compute_loss(
        params: Params, batch: Batch, rng: PRNGKeyArray, total_weight: Array
    ) -> tuple[Array, _LossSums]:
        outputs = model.apply(
            {"params": params},
            batch,
            train=True,
            seam_scale=objective.seam_scale,
            state_scale=objective.state_scale,
            rngs={"dropout": rng},
        )
        sums = _LossSums(
            compute_exit_losses(outputs, batch.labels, batch.weights),  # type: ignore[arg-type]
            compute_lte_losses(outputs, batch.labels, batch.weights),  # type: ignore[arg-type]
        )
        minimised = compute_objective_losses(
            outputs,  # type: ignore[arg-type]
            batch.labels,
            weigh_rows(batch.labels, batch.weights, class_weights),
            objective,
        )
        # The loss of learning to exit is added to its exit's loss with weight 1, as in
        # the released code: an exit with weight 0 has neither loss.
        kinds = [kind for kind in (minimised, sums.lte) if kind]
        scale = objective.exit_scale
        loss = sum(scale[i] * kind[i] for kind in kinds for i in learning)
        return jnp.asarray(loss / total_weight), sums

    gradient_fn = jax.value_and_grad(compute_loss, has_aux=True)

    def compute_gradients(
        params: Params, batch: Batch, rng: PRNGKeyArray, total_weight: Array
    ) -> tuple[Params, _LossSums]:
        if accumulate_steps == 1:
            (_, sums), gradients = gradient_fn(params, batch, rng, total_weight)
            return gradients, sums

        # Row b is in part b % accumulate_steps, so that every device keeps its rows.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate_steps, *x.shape[1:]).swapaxes(0, 1),
            batch,
        )

        def add_part(carry: Any, part_and_index: Any) -> tuple[Any, None]:
            part, index = part_and_index
            key = jax.random.fold_in(rng, index)
            (_, sums), gradients = gradient_fn(params, part, key, total_weight)
            return jax.tree.map(jnp.add, carry, (gradients, sums)), None

        part = jax.tree.map(lambda x: x[0], parts)
        (_, sums), _ = jax.eval_shape(gradient_fn, params, part, rng, total_weight)
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, sums))
        indices = jnp.arange(accumulate_steps)
        (gradients, sums), _ = jax.lax.scan(add_part, start, (parts, indices))
        return gradients, sums

    def train_step(
        state: TrainState, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[TrainState, StepMetrics]:
        total_weight = jnp.maximum(batch.weights.sum(), 1)
        step_rng = jax.random.fold_in(rng, state.step)
        gradients, sums = compute_gradients(state.params, batch, step_rng, total_weight)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics = StepMetrics(
            loss_sum_E=jnp.stack(sums.cross_entropy),
            weight=batch.weights.sum(),
            gradient_norm=optax.tree.norm(gradients),
            lte_sum_E=jnp.stack(sums.lte) if sums.lte else None,
        )
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), metrics  # type: ignore[arg-type]

    return train_step
