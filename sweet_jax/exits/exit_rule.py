"""The exit rule: decides which rows leave at an exit, while the exits are run."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32

from sweet_jax.arrays import Array
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import (
    FULL,
    Criterion,
    check_lte,
    check_threshold,
    find_criterion,
)
from sweet_jax.exits.learned import scale_lte, trace_scaled_lte
from sweet_jax.exits.temperatures import apply_temperatures


@dataclasses.dataclass(frozen=True, eq=False)
class ExitRule:
    """A criterion with its thresholds and the calibration of the exits.

    Attributes:
        criterion: a registered name.
        thresholds: an example leaves at exit i if its score there is at least
            thresholds[i]; inf: none leaves. All remaining rows leave at the last exit.
        temperatures: each exit's logits are divided by its temperature.
        lte_ranges: range of each exit's learning-to-exit scores; None if there are no
            such scores.
    """

    criterion: str
    thresholds: Float32[np.ndarray, " E"]
    temperatures: Float32[np.ndarray, " E"]
    lte_ranges: Float32[np.ndarray, "E 2"] | None = None

    @classmethod
    def make(
        cls,
        calibration: Calibration,
        thresholds: Sequence[float],
        criterion: str = "confidence",
    ) -> "ExitRule":
        """Returns the rule of a calibrated model.

        Args:
            calibration: the model's calibration.
            thresholds: one for all exits, or one for each exit except the last.
            criterion: the criterion whose scores are compared with the thresholds.

        Raises:
            ValueError: a threshold is outside of the criterion's range, or the
                criterion reads scores that the model does not give.
        """
        _, num_exits, num_classes = calibration.bank.logits.shape
        early = [*thresholds] * (num_exits - 1 if len(thresholds) == 1 else 1)
        rule = cls(
            criterion,
            # Never compared: all remaining rows leave at the last exit.
            np.array([*early, FULL], np.float32),
            calibration.temperatures,
            calibration.lte_ranges,
        )
        rule.check(num_classes)
        return rule

    @property
    def num_exits(self) -> int:
        """The number of exits E."""
        return len(self.thresholds)

    @property
    def reads_lte(self) -> bool:
        """Whether the criterion reads learning-to-exit scores."""
        return find_criterion(self.criterion).reads_lte

    def check(self, num_classes: int) -> None:
        """Raises ValueError for a threshold outside of the criterion's range."""
        check_lte(self.criterion, self.lte_ranges is not None)
        for threshold in self.thresholds:
            check_threshold(
                self.criterion, float(threshold), num_classes, self.num_exits
            )

    def leaves_none(self, exit_index: int) -> bool:
        """Whether no row can leave at this exit."""
        return bool(np.isinf(self.thresholds[exit_index]))

    def score(
        self,
        exit_index: int,
        history_NEA: Float[np.ndarray, "N E C_or_more"],
        outputs_NA: Float[Array, "N A"],
    ) -> Float32[Array, " N"] | None:
        """Starts computing scores on the device, directly after the exit's outputs.

        Args:
            exit_index: i.
            history_NEA: logits of the exits before i, before temperature, and with
                `reads_lte` their learning-to-exit scores; entries from i on are not
                used, since every criterion is causal.
            outputs_NA: the outputs of exit i: logits, possibly followed by others.

        Returns:
            Scores of exit i; None if `decide` needs none.
        """
        if self._needs_no_score(exit_index) or self.criterion == "lte":
            return None
        count = len(outputs_NA)
        # Backends on the host give any number of rows: padded to a power of 2, so that
        # few numbers are compiled.
        more = (1 << (count - 1).bit_length()) - count
        if more and isinstance(outputs_NA, np.ndarray):
            outputs_NA = np.pad(outputs_NA, [(0, more), (0, 0)])
            history_NEA = np.pad(history_NEA, [(0, more), (0, 0), (0, 0)])
        scores = _score_exit(
            find_criterion(self.criterion),
            np.int32(exit_index),
            history_NEA,
            outputs_NA,
            self.temperatures,
            self.lte_ranges if self.reads_lte else None,
        )
        return np.asarray(scores)[:count] if len(scores) > count else scores

    def decide(
        self,
        exit_index: int,
        scores_N: Float32[np.ndarray, " N"] | None,
        outputs_NA: Float[np.ndarray, "N A"],
    ) -> Bool[np.ndarray, " N"]:
        """Returns which rows leave at an exit.

        Args:
            exit_index: i.
            scores_N: the result of `score`.
            outputs_NA: the outputs of exit i: logits, then its learning-to-exit score
                if it has one.
        """
        if self._needs_no_score(exit_index):
            last = exit_index == self.num_exits - 1
            return np.full(len(outputs_NA), last)
        if self.lte_ranges is not None and self.criterion == "lte":
            ranges = self.lte_ranges[exit_index : exit_index + 1]
            scores_N = scale_lte(outputs_NA[:, -1:], ranges)[:, 0]
        assert scores_N is not None
        # float32 on both sides, as in the cascade.
        return scores_N >= self.thresholds[exit_index]

    def _needs_no_score(self, exit_index: int) -> bool:
        """Whether the decision is known: the last exit, or an infinite threshold."""
        return exit_index == self.num_exits - 1 or self.leaves_none(exit_index)


@functools.partial(jax.jit, static_argnums=0)
def _score_exit(
    criterion: Criterion,
    exit_index: Any,
    history_NEA: Array,
    outputs_NA: Array,
    temperatures_E: Array,
    lte_ranges_E2: Array | None,
) -> Array:
    """Computes the evaluator's scores of one exit; compiled per number of rows."""
    width = history_NEA.shape[2]
    history = jnp.asarray(history_NEA).at[:, exit_index].set(outputs_NA[:, :width])
    if lte_ranges_E2 is None:
        return criterion.score(apply_temperatures(history, temperatures_E))[
            :, exit_index
        ]
    # The last column has the learning-to-exit scores.
    calibrated_NEC = apply_temperatures(history[:, :, :-1], temperatures_E)
    lte_NE = trace_scaled_lte(history[:, :, -1], lte_ranges_E2)
    return criterion.score(calibrated_NEC, lte_NE)[:, exit_index]
