"""train.select=best keeps the epoch that scores highest, through interruptions."""

import numpy as np
import pytest

from sweet_jax.checkpoint import Checkpoints
from sweet_jax.training.selection import BestEpoch

PARAMS = {"kernel": np.zeros(3, np.float32)}


def make_best(folder) -> tuple[BestEpoch, Checkpoints]:
    """Returns a choice whose score is the first number of the parameters."""
    store = Checkpoints(folder, keep=1)
    return BestEpoch(store, lambda params: float(params["kernel"][0]), PARAMS), store


def make_params(score: float) -> dict[str, np.ndarray]:
    return {"kernel": np.array([score, 1, 2], np.float32)}


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(
    ("scores", "kept"), [([0.5, 0.75, 0.25, 0.75], 2), ([0.5, 0.25], 1), ([0.0], 1)]
)
def test_the_highest_score_is_kept_and_of_equals_the_first(
    tmp_path, scores, kept, interrupted
):
    best, store = make_best(tmp_path)
    for epoch, score in enumerate(scores, start=1):
        best.offer(epoch, make_params(score))
        if interrupted:  # Another process goes on with what was kept.
            store.close()
            best, store = make_best(tmp_path)
    assert store.list_steps() == [kept]
    np.testing.assert_array_equal(
        best.take()["kernel"], make_params(scores[kept - 1])["kernel"]
    )
    store.close()
