"""Measures the ranges of the states that are multiplied, from which int8 scales follow.

A scale per batch would need a pass over the states before each product, and would make
the prediction for a row depend on the other rows of its batch.
"""

from collections.abc import Iterable

import numpy as np
from flax import linen as nn

from sweet_jax.arrays import Batch, Params
from sweet_jax.onnx_graphs.graph import Ranges
from sweet_jax.onnx_graphs.segments import INPUT, make_segment_models
from sweet_jax.standalone.onnx_session import run_session, start_session


def measure_ranges(
    model: nn.Module, params: Params, batches: Iterable[Batch]
) -> list[Ranges]:
    """Returns the range of each product's input at real tokens, zero included.

    Args:
        model: a MultiExitClassifier or a MultiModelSet.
        params: parameters of the model.
        batches: calibration rows.

    Returns:
        For each segment: path of the product -> lowest and highest value.

    Raises:
        ValueError: the family cannot be written as ONNX.
    """
    sessions = [
        start_session(segment.SerializeToString())
        for segment in make_segment_models(model, params, gives_inputs=True)
    ]
    # All values are kept within the range: leaving out those of one token in a hundred,
    # a thousand or ten thousand rounds no better (measured on MiniLM, 6 layers).
    ranges: list[dict[str, tuple[float, float]]] = [{} for _ in sessions]
    for batch in batches:
        names = ("token_ids", "type_ids", "mask")
        tokens = {name: np.asarray(getattr(batch, name)) for name in names}
        rows, real_BL = tokens, tokens["mask"] > 0
        for i, session in enumerate(sessions):
            outputs = run_session(session, rows)
            for name, x_BLD in outputs.items():
                if name.startswith(INPUT):
                    x_TD, path = x_BLD[real_BL], name.removeprefix(INPUT)
                    low, high = ranges[i].get(path, (0.0, 0.0))
                    ranges[i][path] = (
                        min(low, float(x_TD.min())),
                        max(high, float(x_TD.max())),
                    )
            # The members of a set of models start from the tokens.
            if "state_after" in outputs:
                rows = tokens | {"state": outputs["state_after"]}
    return [*ranges]
