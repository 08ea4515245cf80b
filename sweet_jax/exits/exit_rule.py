"""Who leaves at an exit: the cascade's rule, applied while the exits are being run."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32

from sweet_jax.arrays import Array
from sweet_jax.exits.criteria import check_lte, check_threshold, compute_scores
from sweet_jax.exits.learned import scale_lte
from sweet_jax.exits.temperatures import apply_temperatures


@dataclasses.dataclass(frozen=True, eq=False)
class ExitRule:
    """A criterion with its thresholds and what makes the exits comparable.

    Attributes:
        criterion: a name in `criteria.CRITERIA`.
        thresholds: an example leaves at exit i if its score there is at least
            thresholds[i]; inf: none leaves. The last exit answers whatever it says.
        temperatures: each exit's logits are divided by its own.
        lte_ranges: of each exit's learning-to-exit scores; None where there are none.
    """

    criterion: str
    thresholds: Float32[np.ndarray, " E"]
    temperatures: Float32[np.ndarray, " E"]
    lte_ranges: Float32[np.ndarray, "E 2"] | None = None

    @property
    def num_exits(self) -> int:
        """The number of exits E."""
        return len(self.thresholds)

    def check(self, num_classes: int) -> None:
        """Raises ValueError for a threshold outside of the criterion's range."""
        check_lte(self.criterion, self.lte_ranges is not None)
        for threshold in self.thresholds:
            check_threshold(
                self.criterion, float(threshold), num_classes, self.num_exits
            )

    def leaves_none(self, exit_index: int) -> bool:
        """Whether no score can leave at this exit."""
        return bool(np.isinf(self.thresholds[exit_index]))

    def score(
        self,
        exit_index: int,
        history_NEC: Float[np.ndarray, "N E C"],
        answers_NA: Float[Array, "N A"],
    ) -> Float32[jax.Array, " N"] | None:
        """Starts computing scores on the device, right behind the answers.

        Args:
            exit_index: i.
            history_NEC: logits of the exits before i, before temperature; what stands
                at i and behind it is not looked at, since every criterion is causal.
            answers_NA: what exit i says: logits, then perhaps more.

        Returns:
            Scores of exit i; None where `decide` needs none.
        """
        if self._needs_no_score(exit_index) or self.criterion == "lte":
            return None
        return _score_exit(
            self.criterion,
            np.int32(exit_index),
            history_NEC,
            answers_NA,
            self.temperatures,
        )

    def decide(
        self,
        exit_index: int,
        scores_N: Float32[np.ndarray, " N"] | None,
        answers_NA: Float[np.ndarray, "N A"],
    ) -> Bool[np.ndarray, " N"]:
        """Returns which rows leave at an exit.

        Args:
            exit_index: i.
            scores_N: what `score` began.
            answers_NA: what exit i says: logits, then its learning-to-exit score if it
                has one.
        """
        if self._needs_no_score(exit_index):
            last = exit_index == self.num_exits - 1
            return np.full(len(answers_NA), last)
        if self.lte_ranges is not None and self.criterion == "lte":
            ranges = self.lte_ranges[exit_index : exit_index + 1]
            scores_N = scale_lte(answers_NA[:, -1:], ranges)[:, 0]
        assert scores_N is not None
        # float32 on both sides, as in the cascade.
        return scores_N >= self.thresholds[exit_index]

    def _needs_no_score(self, exit_index: int) -> bool:
        """The last exit always answers, and no score can reach infinity."""
        return exit_index == self.num_exits - 1 or self.leaves_none(exit_index)


@functools.partial(jax.jit, static_argnums=0)
def _score_exit(
    criterion: str,
    exit_index: Any,
    history_NEC: Array,
    answers_NA: Array,
    temperatures_E: Array,
) -> Array:
    """The evaluator's own functions, in one program per number of rows."""
    logits_NC = answers_NA[:, : history_NEC.shape[2]]
    logits_NEC = jnp.asarray(history_NEC).at[:, exit_index].set(logits_NC)
    calibrated_NEC = apply_temperatures(logits_NEC, temperatures_E)
    return compute_scores(criterion, calibrated_NEC)[:, exit_index]
