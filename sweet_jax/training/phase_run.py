"""Runs a phase: its optimiser, its train state and its compiled steps."""

import dataclasses
import logging
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from sweet_jax.arrays import Batch, Params
from sweet_jax.data.batches import BatchPlan
from sweet_jax.devices import (
    Program,
    Programs,
    Shape,
    compile_together,
    replicate,
    shape_of,
)
from sweet_jax.models.init import compute_shapes, make_example_batch
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.rules import SettingsError
from sweet_jax.training.member_training import MemberTraining, PhaseSpan
from sweet_jax.training.objectives import Objective, Phase
from sweet_jax.training.optimizer import make_optimizer, make_schedule
from sweet_jax.training.state import TrainState, make_train_step
from sweet_jax.trees import make_mask

logger = logging.getLogger(__name__)


class PhaseRun:
    """A phase of one member: its optimiser and compiled programs.

    Attributes:
        first: its first step, counted from 0 over all phases.
        stop: the step after its last step.
        starts_exits: whether the exits start anew before its first step.
    """

    def __init__(
        self, training: MemberTraining, span: PhaseSpan, params: Params
    ) -> None:
        """Makes the optimiser; nothing is compiled yet.

        Args:
            training: the member with its training data.
            span: the phase and its steps.
            params: parameters, for their paths and shapes.

        Raises:
            SettingsError: the phase has no trainable parameter.
        """
        self.first, self.stop = span.first, span.stop
        self._training, self._span = training, span
        settings, trainable = training.settings, span.phase.trainable
        if not any(jax.tree.leaves(make_mask(params, trainable))):
            raise SettingsError(
                f"method={settings.method}: trainable={trainable} matches no parameter"
                " of the model; paths begin with encoder/ or exits/"
            )
        self.starts_exits = span.phase.starts_exits
        rate, optim = span.phase.encoder_learning_rate, settings.optim
        if rate is not None:
            optim = dataclasses.replace(optim, encoder_learning_rate=rate)
        num_steps = span.stop - span.first
        self._optimizer = make_optimizer(
            optim, params, trainable, training.find_segment, num_steps
        )
        self._schedule = make_schedule(optim, optim.encoder_learning_rate, num_steps)

        def make_programs(objective: Objective) -> Programs:
            train_step = make_train_step(
                training.model,
                objective,
                self._optimizer,
                settings.train.accumulate_steps,
                training.class_weights,
            )
            # The state is donated: the next state reuses its memory.
            return Programs(jax.jit(train_step, donate_argnums=0))

        # Equal objectives share their programs.
        self._programs = {o: make_programs(o) for o in span.phase.objectives}

    def find_program(self, step: int, batch: Batch) -> Program:
        """Returns the program for a batch after `step` steps; call `compile` first."""
        objective = self._span.find_objective(step)
        return self._programs[objective].by_shape[shape_of(batch)]

    def compute_learning_rate(self, step: int) -> float:
        """Returns the encoder's learning rate at a step, counted from 1."""
        position = jnp.asarray(step - 1 - self.first, jnp.int32)
        return float(self._schedule.compute_learning_rate(position))

    def make_state(self, params: Params) -> TrainState:
        """Returns the state before the phase's first step, on the mesh."""
        state = TrainState(
            jnp.asarray(self.first, jnp.int32), params, self._optimizer.init(params)
        )
        return replicate(state, self._training.mesh)

    def make_target(self, params: Params) -> TrainState:
        """Returns the shapes and placement of the state, for restoring."""
        sharding = NamedSharding(self._training.mesh, PartitionSpec())

        def describe(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        step = jax.ShapeDtypeStruct((), jnp.int32)
        state = TrainState(step, params, jax.eval_shape(self._optimizer.init, params))  # type: ignore[arg-type]
        return jax.tree.map(describe, state)

    def make_batch(self, plan: BatchPlan) -> Batch:
        """Returns the batch of a plan, on the mesh."""
        return self._training.place_batch(self._training.make_batch(plan))

    def compile(self, state: TrainState, rng: jax.Array) -> dict[str, float | int]:
        """Compiles each objective for all its batch lengths; returns the cost.

        This happens before the first step, so that the bar's time left is for steps
        only.
        """
        counts: Counter[tuple[Objective, Shape]] = Counter()
        args_by_shape: dict[Shape, tuple[Any, ...]] = {}
        plans = self._training.iterate_plans(self.first, self.stop)
        for step, plan in enumerate(plans, self.first):
            shape = (self._training.settings.train.batch_size, plan.length)
            if shape not in args_by_shape:
                args_by_shape[shape] = (state, self.make_batch(plan), rng)
            counts[self._span.find_objective(step), shape] += 1
        logger.info(
            "compiling %d %s steps (lengths %s)",
            len(counts),
            "contrastive" if self._span.phase.is_contrastive else "train",
            ", ".join(str(length) for _, length in sorted(args_by_shape)),
        )
        seconds = compile_together(
            {(self._programs[o], shape): args_by_shape[shape] for o, shape in counts}
        )
        programs = {key: self._programs[key[0]].by_shape[key[1]] for key in counts}
        return {
            "phase": self.first,
            "compile_seconds": round(seconds, 3),
            "num_programs": len(programs),
            "flops": sum(counts[key] * p.flops for key, p in programs.items()),
            "temporary_bytes": max(p.temporary_bytes for p in programs.values()),
        }


def measure_step(
    model: nn.Module, phase: Phase, settings: Settings, length: int
) -> Program:
    """Compiles a phase's step for one length, from shapes only, to read its cost.

    With several objectives, returns the step that needs the most memory.
    """
    params = compute_shapes(model)
    optimizer = make_optimizer(
        settings.optim, params, phase.trainable, lambda path: 0, num_steps=1
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(step, params, jax.eval_shape(optimizer.init, params))  # type: ignore[arg-type]
    batch = make_example_batch(settings.train.batch_size, length)

    def compile_step(objective: Objective) -> Program:
        train_step = make_train_step(
            model, objective, optimizer, settings.train.accumulate_steps
        )
        programs = Programs(jax.jit(train_step, donate_argnums=0))
        return programs.compile(shape_of(batch), state, batch, jax.random.key(0))

    programs = [compile_step(objective) for objective in set(phase.objectives)]
    return max(programs, key=lambda program: program.temporary_bytes)
