"""Keeping the best epoch, for train.select=best."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from sweet_jax.arrays import Params
from sweet_jax.training.loop import StateStore


class BestEpoch:
    """The parameters of the epoch with the highest selection score so far."""

    def __init__(
        self, store: StateStore, score_fn: Callable[[Params], float], params: Params
    ) -> None:
        """Takes up what an earlier process kept.

        Args:
            store: where the best parameters are kept, numbered by epoch.
            score_fn: parameters -> selection score; calibration part 0 only.
            params: parameters of the right shapes.
        """
        self._store, self._score_fn = store, score_fn
        self._target = {"params": params, "score": np.zeros((), np.float64)}
        kept = store.restore_newest(lambda epoch: self._target)
        self._best = float(kept[1]["score"]) if kept else -np.inf

    def offer(self, epoch: int, params: Params) -> None:
        """Keeps the parameters if they score higher; of equals the earlier stays."""
        score = self._score_fn(params)
        logging.info("epoch %d: mean exit score %.4f on part 0", epoch, score)
        if score > self._best:
            host = jax.device_get(params)
            self._store.save(epoch, {"params": host, "score": np.float64(score)})
            self._best = score

    def take(self) -> Any:
        """Returns the best parameters."""
        kept = self._store.restore_newest(lambda epoch: self._target)
        assert kept is not None, "no epoch was offered"
        return kept[1]["params"]
