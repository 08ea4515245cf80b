"""The training loop of one member: phases, steps, checkpoints, metrics.

It knows nothing about exits. Every random choice is a pure function of the seed and
the step, so a run that stops after any step goes on bit for bit.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sweet_jax.arrays import Batch, Params
from sweet_jax.data.batches import BatchPlan, make_batch, plan_epoch
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.devices import (
    Program,
    Programs,
    is_first_host,
    make_mesh,
    replicate,
    shape_of,
    shard_batch,
)
from sweet_jax.models.init import compute_shapes, make_example_batch
from sweet_jax.settings.fields import Settings
from sweet_jax.system.stopping import hold
from sweet_jax.training.metrics_log import MetricsLog
from sweet_jax.training.objectives import Member, Objective, Phase
from sweet_jax.training.optimizer import make_optimizer, make_schedule
from sweet_jax.training.preemption import Interrupted, should_stop
from sweet_jax.training.state import StepMetrics, TrainState, make_train_step
from sweet_jax.trees import flatten_paths

# Folded into the seed's key, so that dropout shares no key with fresh weights.
_DROPOUT_STREAM = 1
_DIVERGED = (
    "lower optim.encoder_learning_rate or optim.exit_learning_rate, in another"
    " --workdir; the last good checkpoint stays in this one"
)


class NonFiniteError(ValueError):
    """A loss, a gradient or a parameter is NaN or infinite."""


@runtime_checkable
class StateStore(Protocol):
    """Where training states are kept (`checkpoint.Checkpoints`)."""

    def save(self, step: int, state: Any) -> None:
        """Keeps the state of a step."""
        ...

    def restore_newest(
        self, make_target: Callable[[int], Any]
    ) -> tuple[int, Any] | None:
        """Returns the newest state that reads."""
        ...


@dataclasses.dataclass(frozen=True)
class TrainData:
    """Training rows and how they become batches.

    Attributes:
        rows: tokenised rows.
        buckets: lengths that batches are padded to.
        pad_id: token id of padding.
    """

    rows: Tokenized
    buckets: tuple[int, ...]
    pad_id: int


def count_steps(num_rows: int, settings: Settings) -> tuple[int, int]:
    """Returns (steps per epoch, steps of train.num_epochs)."""
    per_epoch = math.ceil(num_rows / settings.train.batch_size)
    return per_epoch, per_epoch * settings.train.num_epochs


def plan_phases(
    phases: tuple[Phase, ...], num_steps: int
) -> list[tuple[Phase, int, int]]:
    """Returns (phase, first step, step after its last) for every phase.

    Args:
        phases: of a member.
        num_steps: steps of train.num_epochs, of which phases say their percentage.
    """
    ends = [
        round(num_steps * share / 100)
        for share in itertools.accumulate(phase.steps_percent for phase in phases)
    ]
    return list(zip(phases, [0, *ends[:-1]], ends, strict=True))


def measure_step(
    model: nn.Module, phase: Phase, settings: Settings, length: int
) -> Program:
    """Compiles a phase's step for one length from shapes alone, for what it costs.

    Of several objectives, the step that needs the most memory.
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


def train_member(
    model: nn.Module,
    member: Member,
    params: Params,
    data: TrainData,
    settings: Settings,
    find_segment: Callable[[str], int],
    store: StateStore,
    metrics_path: Path,
    on_epoch_end: Callable[[int, Params], None] | None = None,
    probes: Mapping[int, Callable[[int, Params], None]] | None = None,
    quiet: bool = False,
) -> Params:
    """Trains one member, going on from its newest checkpoint.

    Args:
        model: a MultiExitClassifier.
        member: name and phases.
        params: parameters before training, on the host.
        data: training rows.
        settings: of the run.
        find_segment: path -> segment, for clipping.
        store: checkpoints of this member.
        metrics_path: metrics.jsonl, as it was at the restored step.
        on_epoch_end: called with (epochs done, parameters) after each epoch.
        probes: called with (steps done, parameters) at their steps; 0 is before the
            first. The step that a run goes on from is one of them: who makes probes
            leaves out what an earlier process did. Their time is not training's.
        quiet: no progress.

    Returns:
        The parameters after the last step, on the mesh.

    Raises:
        NonFiniteError: names the step, and the exit or parameter; the last good
            checkpoint stays.
        Interrupted: a signal came; the state after the last step is saved.
    """
    probes = probes or {}
    steps_per_epoch, num_steps = count_steps(data.rows.num_rows, settings)
    mesh = make_mesh(settings.train.batch_size // settings.train.accumulate_steps)
    runs = [
        _PhaseRun(model, phase, first, stop, params, settings, find_segment, mesh)
        for phase, first, stop in plan_phases(member.phases, num_steps)
    ]
    num_steps = runs[-1].stop

    def make_target(step: int) -> TrainState:
        # A checkpoint at a phase's end still holds that phase's optimiser.
        return next(run for run in runs if step <= run.stop).make_target(params)

    step, state = store.restore_newest(make_target) or (0, None)
    if step == 0:
        _check_start(params)
    else:
        logging.info("%s goes on after step %d", member.name or "training", step)
    rng = jax.random.fold_in(jax.random.key(settings.seed), _DROPOUT_STREAM)
    rng = replicate(rng, mesh)
    if step in probes:
        probes[step](step, replicate(params, mesh) if state is None else state.params)

    log_path = metrics_path if is_first_host() else None
    with MetricsLog(log_path, member.name, step, num_steps, quiet) as log:
        for run in runs:
            if step >= run.stop:
                continue
            if state is None or step == run.first:
                state = run.make_state(params if state is None else state.params)
            log.write_cost(step, run.compile(state, data, rng))
            pending = None
            with hold() as is_asked:  # Not while compiling: there is nothing to save.
                for plan in _iterate_plans(data, settings, step, run.stop):
                    batch = run.make_batch(data, plan)
                    program = run.find_program(step, batch)
                    state, metrics = program.call(state, batch, rng)
                    # Read one step late: the host prepares while the device computes.
                    if pending is not None:
                        _write_metrics(log, *pending)
                    step += 1
                    pending = (step, step / steps_per_epoch, run, metrics)
                    stops = should_stop(is_asked, step)
                    ends_epoch = step % steps_per_epoch == 0
                    saves = step % settings.train.checkpoint_every_steps == 0
                    probed = step in probes
                    if not (stops or ends_epoch or saves or probed or step == run.stop):
                        continue
                    _write_metrics(log, *pending)  # A bad state must not be saved.
                    pending = None
                    if ends_epoch and on_epoch_end is not None:
                        on_epoch_end(step // steps_per_epoch, state.params)
                    if saves or stops or step == run.stop:
                        on_host = jax.device_get(state)
                        _check_finite(on_host, step)
                        store.save(step, on_host)
                    if stops:
                        # The next process probes what it restores.
                        raise Interrupted(step)
                    if probed:
                        with log.pause():
                            probes[step](step, state.params)
    assert state is not None
    return state.params


class _PhaseRun:
    """A phase of one member: its steps, optimiser and compiled programs."""

    def __init__(
        self,
        model: nn.Module,
        phase: Phase,
        first: int,
        stop: int,
        params: Params,
        settings: Settings,
        find_segment: Callable[[str], int],
        mesh: Mesh,
    ) -> None:
        self.first, self.stop = first, stop
        self._phase, self._settings, self._mesh = phase, settings, mesh
        self._optimizer = make_optimizer(
            settings.optim, params, phase.trainable, find_segment, stop - first
        )
        self._schedule = make_schedule(
            settings.optim, settings.optim.encoder_learning_rate, stop - first
        )

        def make_programs(objective: Objective) -> Programs:
            train_step = make_train_step(
                model, objective, self._optimizer, settings.train.accumulate_steps
            )
            # The state is donated: its memory holds the next state.
            return Programs(jax.jit(train_step, donate_argnums=0))

        # Equal objectives share their programs.
        self._programs = {o: make_programs(o) for o in phase.objectives}

    def find_objective(self, step: int) -> Objective:
        """Returns the objective of the step after `step` steps of all phases."""
        return self._phase.choose_objective(step - self.first, self.stop - self.first)

    def find_program(self, step: int, batch: Batch) -> Program:
        """Returns what runs the batch after `step` steps; `compile` came before."""
        return self._programs[self.find_objective(step)].by_shape[shape_of(batch)]

    def compute_learning_rate(self, step: int) -> float:
        """Returns the encoder's rate at a step, counted from 1 over all phases."""
        position = jnp.asarray(step - 1 - self.first, jnp.int32)
        return float(self._schedule.compute_rate(position))

    def make_state(self, params: Params) -> TrainState:
        """Returns the state before the phase's first step, on the mesh."""
        state = TrainState(
            jnp.asarray(self.first, jnp.int32), params, self._optimizer.init(params)
        )
        return replicate(state, self._mesh)

    def make_target(self, params: Params) -> TrainState:
        """Returns the state's shapes and placement, to restore into."""
        sharding = NamedSharding(self._mesh, PartitionSpec())

        def describe(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        step = jax.ShapeDtypeStruct((), jnp.int32)
        state = TrainState(step, params, jax.eval_shape(self._optimizer.init, params))  # type: ignore[arg-type]
        return jax.tree.map(describe, state)

    def make_batch(self, data: TrainData, plan: BatchPlan) -> Batch:
        """Returns the batch of a plan, on the mesh."""
        batch = make_batch(
            data.rows, plan, self._settings.train.batch_size, data.pad_id
        )
        return shard_batch(batch, self._mesh)

    def compile(
        self, state: TrainState, data: TrainData, rng: jax.Array
    ) -> dict[str, float | int]:
        """Compiles each objective for every length it meets; returns what that cost.

        Before the first step, so that the time left on the bar is that of the steps.
        """
        counts: Counter[tuple[Objective, tuple[int, int]]] = Counter()
        args_by_shape = {}
        plans = _iterate_plans(data, self._settings, self.first, self.stop)
        for step, plan in enumerate(plans, self.first):
            shape = (self._settings.train.batch_size, plan.length)
            if shape not in args_by_shape:
                args_by_shape[shape] = (state, self.make_batch(data, plan), rng)
            counts[self.find_objective(step), shape] += 1
        for objective, programs in self._programs.items():
            programs.compile_all(
                {shape: args_by_shape[shape] for o, shape in counts if o == objective}
            )
        seconds = sum(programs.seconds for programs in self._programs.values())
        logging.info(
            "compiled %d train steps (lengths %s) in %.1f s",
            len(counts),
            ", ".join(str(length) for _, length in sorted(args_by_shape)),
            seconds,
        )
        programs = {key: self._programs[key[0]].by_shape[key[1]] for key in counts}
        return {
            "phase": self.first,
            "compile_seconds": round(seconds, 3),
            "num_programs": len(programs),
            "flops": sum(counts[key] * p.flops for key, p in programs.items()),
            "temporary_bytes": max(p.temporary_bytes for p in programs.values()),
        }


def _iterate_plans(
    data: TrainData, settings: Settings, start: int, stop: int
) -> Iterator[BatchPlan]:
    """Yields the batch plans of steps start..stop-1; a function of the seed alone."""
    steps_per_epoch, _ = count_steps(data.rows.num_rows, settings)
    for epoch in itertools.count(start // steps_per_epoch):
        first = epoch * steps_per_epoch
        if first >= stop:
            return
        plans = plan_epoch(
            data.rows.lengths,
            settings.train.batch_size,
            data.buckets,
            settings.seed,
            epoch,
        )
        yield from plans[max(start - first, 0) : stop - first]


def _write_metrics(
    log: MetricsLog, step: int, epoch: float, run: _PhaseRun, metrics: StepMetrics
) -> None:
    """Reads a step's metrics from the device and writes them.

    Raises:
        NonFiniteError: a loss or the gradient is NaN or infinite.
    """
    losses, gradient_norm, weight = _read_metrics(step, metrics)
    log.write(
        step,
        {
            "epoch": round(epoch, 4),
            **{n: [round(loss, 6) for loss in loss_E] for n, loss_E in losses.items()},
            "learning_rate": run.compute_learning_rate(step),
            "gradient_norm": round(gradient_norm, 6),
        },
        num_examples=weight,
    )


def _read_metrics(
    step: int, metrics: StepMetrics
) -> tuple[dict[str, list[float]], float, float]:
    """Returns losses by kind and exit, the gradient's norm and the number of rows.

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
    return losses, gradient_norm, weight


def _fail_at(step: int, what: str) -> NoReturn:
    """Raises NonFiniteError about a step whose losses or gradients are no numbers."""
    if step == 1:  # No parameter has moved yet, so no learning rate is at fault.
        raise NonFiniteError(
            f"{what} at step 1, before any parameter has moved: the encoder's weights"
            " are too large for encoder.dtype, or damaged; take others, or set"
            " encoder.dtype=float32, in another --workdir"
        )
    raise NonFiniteError(f"training diverged: {what} at step {step}: {_DIVERGED}")


def _check_start(params: Params) -> None:
    """Raises NonFiniteError if a parameter is no number before the first step."""
    if name := _find_nonfinite(params):
        raise NonFiniteError(
            f"the weights hold NaN or infinity before the first step (first in {name}):"
            " encoder.name is damaged, or the result of a training that diverged; take"
            " another one"
        )


def _check_finite(state: TrainState, step: int) -> None:
    """Raises NonFiniteError if a state is not to be kept.

    The loss of a step is that of the parameters before it, so it is no check of these.
    """
    name = _find_nonfinite(state.params)
    if name is None and not all(map(_is_finite, jax.tree.leaves(state.opt_state))):
        name = "the optimiser's moments"
    if name is not None:
        raise NonFiniteError(
            f"training diverged: NaN or infinity in {name} after step {step}:"
            f" {_DIVERGED}"
        )


def _find_nonfinite(params: Params) -> str | None:
    """Returns the path of the first parameter that holds NaN or infinity."""
    flat = flatten_paths(params)
    return next((path for path, leaf in flat.items() if not _is_finite(leaf)), None)


def _is_finite(leaf: Any) -> bool:
    return bool(np.isfinite(leaf).all())
