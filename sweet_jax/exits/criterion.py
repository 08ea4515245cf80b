"""What a criterion is: a function of calibrated logits and the range of its scores."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp

from sweet_jax.arrays import Array

ScoresFn: TypeAlias = Callable[..., Array]
RangeFn: TypeAlias = Callable[[int, int], tuple[float, float]]


class Criterion(NamedTuple):
    """A registered criterion.

    Attributes:
        scores_fn: maps calibrated logits_NEC, and with `reads_lte` also lte_NE, to
            scores_NE; higher is more certain. The score of exit i depends only on exits
            up to i and on its own row. jax traces it.
        range_fn: maps (num_classes, num_exits) to the lowest and highest score.
        counts: scores are whole numbers, and all of them are thresholds.
        reads_lte: it reads learning-to-exit scores, which not every model has.
    """

    scores_fn: ScoresFn
    range_fn: RangeFn
    counts: bool = False
    reads_lte: bool = False

    def score(self, logits_NEC: Array, *lte_NE: Array) -> Array:
        """Returns float32 scores within the range."""
        _, num_exits, num_classes = logits_NEC.shape
        scores_NE = self.scores_fn(logits_NEC.astype(jnp.float32), *lte_NE)
        # Softmax rounds: a score could be outside of its range by an ulp, and would
        # then not reach the lowest threshold.
        low, high = self.range_fn(num_classes, num_exits)
        return jnp.clip(scores_NE.astype(jnp.float32), low, high)
