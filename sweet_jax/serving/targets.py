"""From what a person wants of a served model to thresholds."""

import math
import threading
from pathlib import Path

import numpy as np
from absl import logging

from sweet_jax.engine.costs import SegmentCosts, measure_costs
from sweet_jax.engine.engine import Engine
from sweet_jax.exits.criteria import FULL
from sweet_jax.exits.exit_rule import ExitRule
from sweet_jax.serving.description import ModelDescription
from sweet_jax.thresholds.budget import Budget, load_budget
from sweet_jax.thresholds.choice import Choice


class Targets:
    """Chooses thresholds for a model folder; what that needs is read once, when needed.

    Safe to use from several threads.
    """

    def __init__(
        self, folder: Path, description: ModelDescription, engine: Engine
    ) -> None:
        """Reads and measures nothing yet."""
        self._folder, self._description, self._engine = folder, description, engine
        self._budget: Budget | None = None
        self._costs: SegmentCosts | None = None
        self._lock = threading.Lock()

    def choose_thresholds(
        self, target: tuple[str, float] | None, criterion: str = "confidence"
    ) -> tuple[float, ...]:
        """Returns the thresholds that meet a target: one for all exits, or one each.

        Args:
            target: (`threshold`, `speedup`, `milliseconds` or `max_accuracy_loss`,
                value); None: every layer runs.
            criterion: whose scores they are compared with.

        Raises:
            ValueError: the target is out of range, the criterion unknown, or the model
                folder has no calibration rows to choose on.
        """
        if target is None:
            thresholds: tuple[float, ...] = (FULL,)
        elif target[0] == "threshold":
            thresholds = (target[1],)
        else:
            choice = self._choose(*target, criterion)
            level = logging.INFO if choice.feasible else logging.WARNING
            logging.log(level, choice)
            thresholds = choice.thresholds
        make_rule(self._description, thresholds, criterion)
        return thresholds

    def _choose(self, name: str, value: float, criterion: str) -> Choice:
        if name == "milliseconds" and not 0 < value < math.inf:
            # Before segments are measured, and in the unit that was asked for.
            raise ValueError(f"milliseconds={value}: allowed is a number above 0")
        budget = self._find_budget()
        if name == "speedup":
            return budget.choose_speedup(value, criterion)
        if name == "milliseconds":
            seconds_E = self.measure_costs().seconds_per_row
            return budget.choose_seconds(value / 1000, seconds_E, criterion)
        return budget.choose_risk(value, criterion=criterion)

    def measure_costs(self) -> SegmentCosts:
        """Returns what segments take on this device for lengths as in calibration.

        Measured once, on full batches; the first call compiles.

        Raises:
            ModelFolderError: the folder's calibration rows cannot be used.
        """
        d = self._description
        self._find_budget()  # Its rows are as many as the description counts.
        with self._lock:
            if self._costs is None:
                lengths = np.repeat(d.buckets, d.bucket_rows)
                engine = self._engine
                self._costs = measure_costs(
                    engine.segments, lengths, engine.shapes.batch_size, d.buckets
                )
            return self._costs

    def _find_budget(self) -> Budget:
        with self._lock:
            if self._budget is None:
                self._budget = load_budget(self._folder, self._description)
            return self._budget


def make_rule(
    description: ModelDescription, thresholds: tuple[float, ...], criterion: str
) -> ExitRule:
    """Returns who leaves where.

    Args:
        description: of the model.
        thresholds: one for all exits, or one each but for the last.
        criterion: whose scores they are compared with.

    Raises:
        ValueError: a threshold is out of range, or the criterion reads scores that the
            model does not give.
    """
    d = description
    # The last exit answers whatever it says.
    num_early = len(d.exit_layers) - 1
    limits = thresholds if len(thresholds) > 1 else thresholds * num_early
    rule = ExitRule(
        criterion,
        np.array([*limits, FULL], np.float32),
        np.array(d.temperatures, np.float32),
        np.array(d.lte_ranges, np.float32) if d.lte_ranges else None,
    )
    rule.check(len(d.label_names))
    return rule
