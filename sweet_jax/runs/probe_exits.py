"""Starts the exits of a model as linear probes (`exits.init=probe`)."""

import logging
import time
from collections.abc import Callable, Sequence

from sweet_jax.arrays import Params
from sweet_jax.devices import share_arrays
from sweet_jax.evaluation.frozen_states import FrozenStates
from sweet_jax.evaluation.probes import Probe, fit_probe
from sweet_jax.training.loop import Start
from sweet_jax.training.member_training import MemberTraining
from sweet_jax.trees import merge_strict

logger = logging.getLogger(__name__)


def probe_exits(
    training: MemberTraining,
    published: FrozenStates,
    find_probes: Callable[[], Sequence[Probe]],
    params: Params,
    step: int,
) -> Start:
    """Returns the parameters with a probe in each exit's pooler and classifier.

    Each exit is probed on the states that it reads, pooled as it pools: before the
    first step in the encoder as published, later in the member's own. Norms and
    learning-to-exit heads stay as they are. All hosts make this call.

    Args:
        training: the member.
        published: collects states in the encoder as published.
        find_probes: returns the probes there, of all exits of the run.
        params: the member's parameters, on the host.
        step: steps done.
    """
    start = time.perf_counter()
    logger.info("fitting linear probes, which the exits start as")
    model, rows = training.model, training.data.rows
    frozen = published
    if step > 0:
        frozen = published.with_encoder(model.encoder, model.exit_layers)
    spent = frozen.spent
    if step == 0:
        all_probes = find_probes()
        probes = [all_probes[i] for i in model.exit_numbers]
    else:
        # All exits' norms start equal, and a contrastive phase keeps them.
        norm = params["exits"][f"exit_{model.exit_numbers[0]}"].get("norm")
        probes = [
            fit_probe(states_ND, rows.labels, model.num_classes)
            for states_ND in frozen.collect(params["encoder"], norm, rows)
        ]
    cost = {name: value - spent[name] for name, value in frozen.spent.items()}
    exits = {
        name: params["exits"][name] | share_arrays(probe.make_exit())
        for number, probe in zip(model.exit_numbers, probes, strict=True)
        for name in [f"exit_{number}"]
    }
    seconds = time.perf_counter() - start - cost["compile_seconds"]
    logger.info(
        "%s: %d exit(s) start as linear probes of %d rows, made in %.1f s",
        training.member.name or "model",
        len(exits),
        rows.num_rows,
        seconds,
    )
    return Start(
        merge_strict(params, {**params, "exits": exits}),
        {"seconds": round(seconds, 3), **cost, "temporary_bytes": frozen.memory},
    )
