"""Measures the cost of a model's segments on the test rows."""

from sweet_jax.arrays import Params
from sweet_jax.engine.costs import SegmentCosts, measure_costs
from sweet_jax.engine.segments import Segments
from sweet_jax.models.multi_exit import join_models
from sweet_jax.runs.inputs import Prepared

# Only the most frequent lengths, because each is compiled for every segment.
_MOST_LENGTHS = 3


def measure_segment_costs(prepared: Prepared, params: Params) -> SegmentCosts:
    """Returns FLOPs and seconds of every segment, on this device.

    Args:
        prepared: the inputs of the run.
        params: serving parameters, on the host.
    """
    settings = prepared.settings
    segments = Segments(
        join_models(prepared.models),
        params,
        len(settings.exits.layers),
        prepared.num_classes,
        settings.encoder.matmul_precision,
    )
    return measure_costs(
        segments,
        prepared.rows["test"].lengths,
        settings.evaluate.batch_size,
        prepared.buckets,
        _MOST_LENGTHS,
    )
