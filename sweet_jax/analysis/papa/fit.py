"""Trains probes: all points and seeds in one program (sections 5, 6 and 8).

A *point* is a set of constant heads and their constants. Each array of a `FitState` has
two leading axes, points P and seeds S, and `jax.vmap` maps the step over both. A seed
gives a probe its fresh weights, the order of its rows and its dropout; all points share
these, so that they can be compared seed by seed.

AdamW without weight decay, (0.9, 0.999, 1e-8), at a constant learning rate; the
gradient's norm is limited to 1 for each probe on its own.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, PRNGKeyArray

from sweet_jax.analysis.papa.layout import SlotRows
from sweet_jax.arrays import Batch, Params
from sweet_jax.devices import Programs
from sweet_jax.system.stopping import hold
from sweet_jax.training.loop import StateStore
from sweet_jax.training.preemption import Interrupted

# (parameters, data of the point, encoder's weights, batch, key) -> mean loss. In the
# batch, row_ids are positions in the training rows.
LossFn: TypeAlias = Callable[[Params, Any, Any, Batch, PRNGKeyArray], jax.Array]
CLIP_NORM = 1.0
# Streams of a seed's key.
_WEIGHTS, _DROPOUT = 0, 1


class DivergedError(ValueError):
    """The loss of a probe is not finite."""


class FitState(NamedTuple):
    """Probes in training; every array but `step` has leading axes P and S.

    Attributes:
        step: steps done.
        params: parameters.
        moments: of the optimiser.
    """

    step: jax.Array
    params: Params
    moments: Any


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How probes are trained.

    Attributes:
        batch_size: rows of a step, for each probe.
        num_epochs: passes over the training rows.
        rates: learning rate of each top-level part of the parameters.
        seeds: one probe for each, at every point.
        checkpoint_every_steps: steps between two stored states.
        steps_per_call: steps between two looks at the clock and at signals.
    """

    batch_size: int
    num_epochs: int
    rates: dict[str, float]
    seeds: tuple[int, ...]
    checkpoint_every_steps: int
    steps_per_call: int

    def count_steps(self, num_rows: int) -> int:
        """Returns the number of steps."""
        return self.num_epochs * math.ceil(num_rows / self.batch_size)


class Fit:
    """Trains probes of one kind; keeps the compiled program for further points."""

    def __init__(self, loss_fn: LossFn, rows: SlotRows, settings: FitSettings) -> None:
        """Puts the rows on the device; nothing is compiled yet.

        Args:
            loss_fn: the mean loss of one probe over a batch.
            rows: the training rows.
            settings: how to train.
        """
        self._settings, self._num_rows = settings, rows.num_rows
        self.num_steps = settings.count_steps(rows.num_rows)
        every = rows.take(np.arange(rows.num_rows), rows.num_rows)
        plan_TSB, real_TB = plan_rows(rows.num_rows, settings)
        keys_S = jax.vmap(jax.random.key)(np.asarray(settings.seeds))
        self._keys_S = jax.vmap(lambda key: jax.random.fold_in(key, _DROPOUT))(keys_S)
        self._arrays = jax.device_put((every, plan_TSB, real_TB, self._keys_S))
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP_NORM), optax.scale_by_adam()
        )
        self._programs = Programs(
            jax.jit(self._make_run(loss_fn), donate_argnums=0, static_argnums=())
        )

    def make_state(
        self, init_fn: Callable[[PRNGKeyArray], Params], num_points: int
    ) -> FitState:
        """Returns the state before the first step.

        Args:
            init_fn: key -> fresh parameters of one probe.
            num_points: P.
        """
        keys_S = jax.vmap(jax.random.key)(np.asarray(self._settings.seeds))
        keys_S = jax.vmap(lambda key: jax.random.fold_in(key, _WEIGHTS))(keys_S)

        def make(keys_S: jax.Array) -> FitState:
            params_S = jax.vmap(init_fn)(keys_S)
            params_PS = jax.tree.map(
                lambda x: jnp.broadcast_to(x, (num_points, *x.shape)), params_S
            )
            moments_PS = jax.vmap(jax.vmap(self._optimizer.init))(params_PS)
            return FitState(jnp.zeros((), jnp.int32), params_PS, moments_PS)

        return jax.jit(make)(keys_S)

    def run(
        self,
        state: FitState,
        data: Any,
        weights: Any,
        store: StateStore,
        on_steps: Callable[[int, float], None],
        on_start: Callable[[int], None],
    ) -> FitState:
        """Trains from the newest stored state on; returns the last state.

        Args:
            state: the state before the first step; it is donated.
            data: of every point, with a leading axis P.
            weights: of the encoder; shared by all points.
            store: stored states of this training.
            on_steps: called with (steps done, mean loss over the last few).
            on_start: called with the steps that an earlier process has done.

        Raises:
            DivergedError: a loss is NaN or infinite.
            Interrupted: a stop was requested; the state is stored.
        """
        shapes = jax.eval_shape(lambda s: s, state)
        found = store.restore_newest(lambda _: shapes)
        if found is not None:
            state = jax.device_put(found[1])
        step, last_saved = int(state.step), int(state.step)
        settings = self._settings
        on_start(step)
        call = self._compile(state, data, weights)
        with hold() as is_asked:
            while step < self.num_steps:
                stop = min(step + settings.steps_per_call, self.num_steps)
                state, loss = call(state, data, weights, *self._arrays, stop)
                mean = float(loss) / (stop - step)
                step = stop
                if not math.isfinite(mean):
                    raise DivergedError(
                        f"the loss of a probe is {mean} at step {step}: lower"
                        " papa.learning_rate, in another --workdir"
                    )
                on_steps(step, mean)
                due = step - last_saved >= settings.checkpoint_every_steps
                if is_asked() or (due and step < self.num_steps):
                    store.save(step, jax.device_get(state))
                    last_saved = step
                if is_asked():
                    raise Interrupted(step)
        return state

    def _compile(self, state: FitState, data: Any, weights: Any) -> Any:
        args = (state, data, weights, *self._arrays, 0)
        # A number of points stands for the shapes of all arguments.
        num_points = jax.tree.leaves(state.params)[0].shape[0]
        shape = (num_points * len(self._settings.seeds), self._settings.batch_size)
        return self._programs.compile(shape, *args).call

    def _make_run(self, loss_fn: LossFn) -> Callable[..., tuple[FitState, jax.Array]]:
        rates, optimizer = self._settings.rates, self._optimizer

        def step_one(
            params: Params,
            moments: Any,
            data: Any,
            weights: Any,
            batch: Batch,
            key: Any,
        ) -> tuple[Params, Any, jax.Array]:
            loss, gradient = jax.value_and_grad(loss_fn)(
                params, data, weights, batch, key
            )
            updates: Any
            updates, moments = optimizer.update(gradient, moments)
            params = {
                name: jax.tree.map(
                    lambda p, u, rate=rates[name]: p - rate * u, part, updates[name]
                )
                for name, part in params.items()
            }
            return params, moments, loss

        over_seeds = jax.vmap(step_one, (0, 0, None, None, 0, 0))
        over_points = jax.vmap(over_seeds, (0, 0, 0, None, None, None))

        def run(
            state: FitState,
            data: Any,
            weights: Any,
            rows: Batch,
            plan_TSB: jax.Array,
            real_TB: jax.Array,
            keys_S: jax.Array,
            stop: jax.Array,
        ) -> tuple[FitState, jax.Array]:
            """Returns the state after step `stop`, and the sum of the mean losses."""

            def body(
                step: jax.Array, carry: tuple[Params, Any, jax.Array]
            ) -> tuple[Params, Any, jax.Array]:
                params, moments, total = carry
                rows_SB = plan_TSB[step]
                batch = Batch(*(x[rows_SB] for x in rows))
                real_SB = jnp.broadcast_to(real_TB[step], rows_SB.shape)
                batch = batch._replace(weights=real_SB, row_ids=rows_SB)
                step_keys_S = jax.vmap(jax.random.fold_in, (0, None))(keys_S, step)
                params, moments, loss_PS = over_points(
                    params, moments, data, weights, batch, step_keys_S
                )
                return params, moments, total + loss_PS.mean()

            start = (state.params, state.moments, jnp.zeros(()))
            params, moments, loss = jax.lax.fori_loop(state.step, stop, body, start)
            return FitState(jnp.asarray(stop, jnp.int32), params, moments), loss

        return run


def plan_rows(
    num_rows: int, settings: FitSettings
) -> tuple[Int[np.ndarray, "T S B"], Float[np.ndarray, "T B"]]:
    """Returns the rows of every step and seed, and 1 where a place holds a row.

    A pure function of the seeds: every epoch has each row once, in a random order.
    """
    size = settings.batch_size
    per_epoch = math.ceil(num_rows / size)
    missing = per_epoch * size - num_rows
    plan_TSB = np.stack(
        [
            np.pad(
                np.random.default_rng((seed, epoch)).permutation(num_rows), (0, missing)
            ).reshape(per_epoch, size)
            for epoch in range(settings.num_epochs)
            for seed in settings.seeds
        ]
    ).reshape(settings.num_epochs, len(settings.seeds), per_epoch, size)
    plan_TSB = plan_TSB.swapaxes(1, 2).reshape(-1, len(settings.seeds), size)
    real_B = np.pad(np.ones(num_rows, np.float32), (0, missing)).reshape(-1, size)
    return plan_TSB.astype(np.int32), np.tile(real_B, (settings.num_epochs, 1))


def compute_mean_loss(
    logits_BC: Float[jax.Array, "B C"], batch: Batch
) -> Float[jax.Array, ""]:
    """Returns the mean cross-entropy over real rows."""
    losses_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch.labels)
    weights_B = jnp.asarray(batch.weights)
    return (losses_B * weights_B).sum() / jnp.maximum(weights_B.sum(), 1.0)
