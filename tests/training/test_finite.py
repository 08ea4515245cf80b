"""A training stops at the first number that is NaN or infinite, and names it."""

import numpy as np
import pytest
from dense_model import init_dense_params, make_dense_model

from sweet_jax.training.finite import (
    NonFiniteError,
    check_start,
    check_state,
    read_metrics,
)
from sweet_jax.training.state import StepMetrics, TrainState
from sweet_jax.trees import flatten_paths, unflatten_paths


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        (1, {"loss_sum_E": [1.0, np.nan]}, "loss of exit 1 is nan at step 1, before"),
        (2, {"loss_sum_E": [np.inf, 1.0]}, "diverged: the loss of exit 0 is inf at st"),
        (
            2,
            {"gradient_norm": np.nan},
            "the gradient's norm is nan at step 2",
        ),
        (2, {"lte_sum_E": [1.0, -np.inf]}, "diverged: the loss of exit 1 is -inf"),
    ],
)
def test_what_is_no_number_is_named(step, changes, message):
    numbers = {"loss_sum_E": [1.0, 1.0], "weight": 4.0, "gradient_norm": 1.0}
    metrics = StepMetrics(
        **{n: np.array(x, np.float32) for n, x in (numbers | changes).items()}  # type: ignore[arg-type]
    )
    with pytest.raises(NonFiniteError, match=message) as error:
        read_metrics(step, metrics)
    assert ("learning_rate" in str(error.value)) == (step > 1)


def test_weights_that_are_no_numbers_are_never_trained_or_kept():
    params = init_dense_params(make_dense_model())
    flat = {path: np.array(leaf) for path, leaf in flatten_paths(params).items()}
    path = "encoder/layer_1/dense/kernel"
    flat[path][0, 0] = np.nan
    broken = unflatten_paths(flat)
    with pytest.raises(NonFiniteError, match=f"before the first step .first in {path}"):
        check_start(broken)
    zero = np.zeros((), np.int32)
    for state, message in (
        (TrainState(zero, broken, ()), f"in {path} after step 5"),
        (TrainState(zero, params, {"nu": flat[path]}), "moments after step 5"),
    ):
        with pytest.raises(NonFiniteError, match=message):
            check_state(state, 5)
    check_state(TrainState(zero, params, ()), 5)
