"""What the segments of a run's model cost on its test rows."""

from sweet_jax.arrays import Params
from sweet_jax.engine.costs import SegmentCosts, measure_costs
from sweet_jax.engine.segments import Segments
from sweet_jax.models.multi_exit import join_models
from sweet_jax.runs.inputs import Prepared

# Of the test rows, those with most batches: each is compiled for every segment.
_MOST_LENGTHS = 3


def measure_segment_costs(prepared: Prepared, params: Params) -> SegmentCosts:
    """Returns FLOPs and seconds of every segment, on this device.

    Args:
        prepared: the inputs of the run.
        params: for serving, on the host.
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
