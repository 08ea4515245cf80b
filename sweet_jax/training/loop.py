"""The training loop of one member: phases, steps, checkpoints, metrics.

It does not depend on exits or methods.
"""

import dataclasses
import logging
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from sweet_jax.arrays import Params
from sweet_jax.devices import is_first_host, replicate
from sweet_jax.system.stopping import hold
from sweet_jax.training.finite import check_start, check_state, read_metrics
from sweet_jax.training.member_training import MemberTraining
from sweet_jax.training.metrics_log import BEFORE_PHASES, MetricsLog
from sweet_jax.training.phase_run import PhaseRun
from sweet_jax.training.preemption import Interrupted, should_stop
from sweet_jax.training.state import StepMetrics, TrainState

logger = logging.getLogger(__name__)

# Folded into the seed's key, so that dropout and fresh weights use different keys.
_DROPOUT_STREAM = 1


@runtime_checkable
class StateStore(Protocol):
    """Stores training states (`checkpoint.Checkpoints`)."""

    def save(self, step: int, state: Any) -> None:
        """Saves the state of a step."""
        ...

    def restore_newest(
        self, make_target: Callable[[int], Any]
    ) -> tuple[int, Any] | None:
        """Returns (step, state) of the newest undamaged state, or None."""
        ...


@dataclasses.dataclass(frozen=True)
class Progress:
    """How training reports its progress.

    Attributes:
        metrics_path: metrics.jsonl, as it was at the restored step.
        quiet: no progress bar.
        on_epoch_end: called with (epochs done, parameters) after each epoch.
        at_steps: maps numbers of steps done to functions, which are called with that
            number and the parameters; 0 is before the first step. Their time does not
            count as training time. A resumed training calls the function of the
            checkpoint's step: leave out those that an earlier process has called.
    """

    metrics_path: Path
    quiet: bool = False
    on_epoch_end: Callable[[int, Params], None] | None = None
    at_steps: Mapping[int, Callable[[int, Params], None]] = dataclasses.field(
        default_factory=lambda: types.MappingProxyType({})
    )


class Start(NamedTuple):
    """Parameters before the first step that took some computation.

    Attributes:
        params: parameters, on the host.
        cost: `seconds`, and as of a phase `compile_seconds`, `num_programs`, `flops`
            and `temporary_bytes`.
    """

    params: Params
    cost: dict[str, float | int]


def train_member(
    training: MemberTraining,
    params: Params,
    store: StateStore,
    progress: Progress,
    start_fn: Callable[[Params, int], Start] | None = None,
) -> Params:
    """Trains one member, resuming from its newest checkpoint.

    Args:
        training: the member with everything that its training depends on.
        params: parameters before training, on the host.
        store: checkpoints of this member.
        progress: receives metrics and calls during training.
        start_fn: (parameters on the host, steps done) -> parameters of the same shapes,
            before the first step and before phases that start the exits anew; not for
            steps before a restored checkpoint. None: parameters stay as they are.

    Returns:
        The parameters after the last step, on the mesh.

    Raises:
        NonFiniteError: a loss, gradient or parameter is not finite; the last good
            checkpoint is kept.
        SettingsError: a phase of the member trains no parameter.
        Interrupted: a stop was requested; the state after the last step is saved.
    """
    runs = [PhaseRun(training, span, params) for span in training.spans]

    def make_target(step: int) -> TrainState:
        # A checkpoint at the end of a phase still has the optimiser of that phase.
        return next(run for run in runs if step <= run.stop).make_target(params)

    name, mesh = training.member.name, training.mesh
    step, state = store.restore_newest(make_target) or (0, None)
    start_cost = None
    if step == 0:
        if start_fn is not None:
            params, start_cost = start_fn(params, step)
        check_start(params)
    else:
        logger.info("%s goes on after step %d", name or "training", step)
    if step in progress.at_steps:
        progress.at_steps[step](
            step, replicate(params, mesh) if state is None else state.params
        )
    log_path = progress.metrics_path if is_first_host() else None
    with MetricsLog(log_path, name, step, training.num_steps, progress.quiet) as log:
        if start_cost is not None:
            log.write_cost(step, {"phase": BEFORE_PHASES, **start_cost})
        loop = _Loop(training, store, progress, log)
        for run in runs:
            if step >= run.stop:
                continue
            if state is None:
                state = run.make_state(params)
            elif step == run.first:
                params = state.params
                if run.starts_exits and start_fn is not None:
                    params, start_cost = start_fn(jax.device_get(params), step)
                    log.write_cost(step, {"phase": BEFORE_PHASES, **start_cost})
                state = run.make_state(params)
            state = loop.run_phase(run, step, state)
            step = run.stop
    assert state is not None
    return state.params


class _Loop:
    """Runs the training steps of one process, with metrics, checkpoints and calls."""

    def __init__(
        self,
        training: MemberTraining,
        store: StateStore,
        progress: Progress,
        log: MetricsLog,
    ) -> None:
        self._training, self._store = training, store
        self._progress, self._log = progress, log
        key = jax.random.key(training.settings.seed)
        self._rng = replicate(jax.random.fold_in(key, _DROPOUT_STREAM), training.mesh)

    def run_phase(self, run: PhaseRun, step: int, state: TrainState) -> TrainState:
        """Returns the state after the last step of the phase.

        Args:
            run: the phase.
            step: steps done; lies within the phase.
            state: the state after these steps.

        Raises:
            NonFiniteError: a loss, a gradient or a parameter is NaN or infinite.
            Interrupted: a stop was requested; the state is saved.
        """
        self._log.write_cost(step, run.compile(state, self._rng))
        steps_per_epoch = self._training.steps_per_epoch
        every = self._training.settings.train.checkpoint_every_steps
        on_epoch_end, at_steps = self._progress.on_epoch_end, self._progress.at_steps
        pending = None
        with hold() as is_asked:  # Not during compilation: there is no state to save.
            for plan in self._training.iterate_plans(step, run.stop):
                batch = run.make_batch(plan)
                program = run.find_program(step, batch)
                state, metrics = program.call(state, batch, self._rng)
                # Read one step late: the host prepares while the device computes.
                if pending is not None:
                    self._write_metrics(run, *pending)
                step += 1
                pending = (step, metrics)
                stops = should_stop(is_asked, step)
                ends_epoch = step % steps_per_epoch == 0
                saves = step % every == 0 or step == run.stop
                is_observed = step in at_steps
                if not (stops or ends_epoch or saves or is_observed):
                    continue
                self._write_metrics(run, *pending)  # Raises if it is bad.
                pending = None
                if ends_epoch and on_epoch_end is not None:
                    on_epoch_end(step // steps_per_epoch, state.params)
                if saves or stops:
                    on_host = jax.device_get(state)
                    check_state(on_host, step)
                    self._store.save(step, on_host)
                if stops:
                    # The next process makes the calls of this step.
                    raise Interrupted(step)
                if is_observed:
                    with self._log.pause():
                        at_steps[step](step, state.params)
        return state

    def _write_metrics(self, run: PhaseRun, step: int, metrics: StepMetrics) -> None:
        """Reads the metrics of a step from the device and writes them.

        Raises:
            NonFiniteError: a loss or the gradient is NaN or infinite.
        """
        losses, gradient_norm, weight = read_metrics(step, metrics)
        self._log.write(
            step,
            {
                "epoch": round(step / self._training.steps_per_epoch, 4),
                **{n: [round(x, 6) for x in loss_E] for n, loss_E in losses.items()},
                "learning_rate": run.compute_learning_rate(step),
                "gradient_norm": round(gradient_norm, 6),
            },
            num_examples=weight,
        )
