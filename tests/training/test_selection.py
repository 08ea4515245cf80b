"""train.select=best keeps the epoch that scores highest, through interruptions."""

from pathlib import Path

import numpy as np
import pytest

from sweet_jax.training.checkpoint import Checkpoints
from sweet_jax.training.loop import NonFiniteError
from sweet_jax.training.selection import BestEpoch


def make_best(folder: Path) -> BestEpoch:
    """Returns a choice whose score is the first number of the parameters."""
    return BestEpoch(
        Checkpoints(folder), lambda params: float(params["kernel"][0]), make_params(0)
    )


def make_params(score: float) -> dict[str, np.ndarray]:
    return {"kernel": np.array([score, 1, 2], np.float32)}


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.5, 0.75, 0.25, 0.75], 2),
        ([0.5, 0.25], 1),
        ([0.0], 1),
        ([np.nan, 0.25, np.nan], 2),
        ([0.25, np.nan], 1),
    ],
)
def test_the_highest_score_is_kept_and_of_equals_the_first(
    tmp_path, scores, kept, interrupted
):
    best = make_best(tmp_path)
    for epoch, score in enumerate(scores, start=1):
        best.offer(epoch, make_params(score))
        best.save(10 * epoch, make_params(epoch))
        if interrupted:  # Another process goes on with what was kept.
            best = make_best(tmp_path)
            step, state = best.restore_newest(lambda step: make_params(0)) or (0, {})
            assert step == 10 * epoch
            np.testing.assert_array_equal(state["kernel"], make_params(epoch)["kernel"])
    assert best.epoch == kept
    wanted = make_params(scores[kept - 1])["kernel"]
    np.testing.assert_array_equal(best.take()["kernel"], wanted)


def test_a_damaged_checkpoint_sets_the_best_back_with_the_state(tmp_path):
    best = make_best(tmp_path)
    for epoch, score in ((1, 0.25), (2, 0.75)):
        best.offer(epoch, make_params(score))
        best.save(epoch, make_params(0))
    (tmp_path / "2" / "state.safetensors").write_bytes(b"")
    best = make_best(tmp_path)
    found = best.restore_newest(lambda step: make_params(0))
    assert found is not None
    assert (found[0], best.epoch) == (1, 1)


def test_scores_that_are_no_numbers_choose_nothing(tmp_path):
    best = make_best(tmp_path)
    best.offer(1, make_params(np.nan))
    with pytest.raises(NonFiniteError, match=r"only NaN: set train.select=last"):
        best.take()
