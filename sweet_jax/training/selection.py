"""Keeps the parameters of the best epoch, for train.select=best."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sweet_jax.arrays import Params
from sweet_jax.training.finite import NonFiniteError
from sweet_jax.training.loop import StateStore

logger = logging.getLogger(__name__)


class BestEpoch:
    """A store that adds the best parameters so far to each checkpoint.

    The state and the best epoch are in one checkpoint, so they always belong together,
    also after damage or when an older checkpoint is restored.
    """

    def __init__(
        self, store: StateStore, score_fn: Callable[[Params], float], params: Params
    ) -> None:
        """Starts without a best epoch.

        Args:
            store: stores the checkpoints.
            score_fn: parameters -> selection score, on calibration part 0 only.
            params: parameters before training.
        """
        self._store, self._score_fn = store, score_fn
        self._best = {
            "params": _copy(params),
            "score": np.array(-np.inf),
            "epoch": np.array(0),
        }

    @property
    def epoch(self) -> int:
        """The best epoch so far; 0 before the first one."""
        return int(self._best["epoch"])

    def save(self, step: int, state: Any) -> None:
        """Saves the state of a step together with the best parameters."""
        self._store.save(step, {"state": state, "best": self._best})

    def restore_newest(
        self, make_target: Callable[[int], Any]
    ) -> tuple[int, Any] | None:
        """Returns the newest undamaged state; restores the best epoch until then."""
        found = self._store.restore_newest(
            lambda step: {"state": make_target(step), "best": self._best}
        )
        if found is None:
            return None
        step, kept = found
        self._best = kept["best"]
        return step, kept["state"]

    def offer(self, epoch: int, params: Params) -> None:
        """Keeps the parameters if they score higher; ties keep the earlier epoch."""
        score = self._score_fn(params)
        logger.info("epoch %d: mean exit score %.4f on part 0", epoch, score)
        if score > self._best["score"]:  # False for NaN.
            self._best = {
                "params": _copy(params),
                "score": np.array(score),
                "epoch": np.array(epoch),
            }

    def take(self) -> Params:
        """Returns the best parameters, on the host.

        Raises:
            NonFiniteError: no epoch had a score.
        """
        if self.epoch == 0:
            raise NonFiniteError(
                "no epoch has a score on the calibration rows, only NaN: set"
                " train.select=last, in another --workdir"
            )
        return self._best["params"]


def _copy(params: Params) -> Params:
    """Returns a copy on the host, since the next step reuses the device memory."""
    return jax.tree.map(np.array, params)
