"""The baselines of a run, from its rows and its encoder before training."""

import time
from typing import Any

from sweet_jax.devices import is_first_host
from sweet_jax.evaluation.baselines import measure_baselines
from sweet_jax.runs.inputs import Prepared


def measure_run_baselines(prepared: Prepared) -> dict[str, Any] | None:
    """Returns the field `baselines` of results.json.

    All hosts make this call. The first one fits; it returns None on the others.

    Args:
        prepared: the inputs of the run.
    """
    start = time.perf_counter()
    probes = prepared.frozen_probes
    test_states = prepared.collect_frozen("test")
    if not is_first_host():
        return None
    baselines = measure_baselines(
        prepared.raw.task.metric,
        prepared.num_classes,
        prepared.splits.train,
        prepared.splits.test,
        prepared.settings.exits.layers,
        probes,
        test_states,
    )
    return {**baselines, "seconds": round(time.perf_counter() - start, 2)}
