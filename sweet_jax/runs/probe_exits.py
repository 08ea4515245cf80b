"""Starts the exits of a model as linear probes (`exits.init=probe`)."""

import logging
import time

from sweet_jax.arrays import Params
from sweet_jax.data.batches import plan_evaluation
from sweet_jax.devices import share_arrays
from sweet_jax.evaluation.frozen_states import FrozenStates
from sweet_jax.evaluation.probes import fit_probe
from sweet_jax.training.loop import Start
from sweet_jax.training.member_training import MemberTraining
from sweet_jax.trees import merge_strict

logger = logging.getLogger(__name__)


def probe_exits(training: MemberTraining, params: Params) -> Start:
    """Returns the parameters with a probe in each exit's pooler and classifier.

    Each exit is probed on the states that it reads before training: those of its own
    model's encoder, pooled as it pools. Norms and learning-to-exit heads stay as they
    are. All hosts make this call.

    Args:
        training: the member with its training rows.
        params: its other parameters before training, on the host.
    """
    start = time.perf_counter()
    settings, model, data = training.settings, training.model, training.data
    exits = {f"exit_{i}": params["exits"][f"exit_{i}"] for i in model.exit_numbers}
    # Rows that the devices hold in a train step. evaluate.batch_size may change when
    # this run resumes, and with it the last bits of the states.
    batch_size = settings.train.batch_size // settings.train.accumulate_steps
    frozen = FrozenStates(
        model.encoder,
        model.exit_layers,
        settings.exits.pooling,
        params["encoder"],
        next(iter(exits.values())).get("norm"),  # All exits' norms start equal.
        batch_size=batch_size,
        buckets=data.buckets,
        pad_id=data.pad_id,
    )
    for name, states_ND in zip(exits, frozen.collect(data.rows), strict=True):
        probe = fit_probe(states_ND, data.rows.labels, model.num_classes)
        exits[name] = exits[name] | share_arrays(probe.make_exit())
    plans = plan_evaluation(data.rows.lengths, batch_size, data.buckets)
    programs = frozen.programs
    seconds = time.perf_counter() - start - programs.seconds
    logger.info(
        "%s: %d exit(s) start as linear probes of %d rows, made in %.1f s",
        training.member.name or "model",
        len(exits),
        data.rows.num_rows,
        seconds,
    )
    by_shape = programs.by_shape
    return Start(
        merge_strict(params, {**params, "exits": exits}),
        {
            "seconds": round(seconds, 3),
            "compile_seconds": round(programs.seconds, 3),
            "num_programs": len(by_shape),
            "flops": sum(by_shape[batch_size, plan.length].flops for plan in plans),
            "temporary_bytes": max(p.temporary_bytes for p in by_shape.values()),
        },
    )
