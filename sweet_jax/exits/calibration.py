"""Calibration of a model: held-out rows, temperatures, score ranges and exit costs.

A run fits a `Calibration` once. Evaluation, the model folder and the choice of
thresholds all use that object.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from sweet_jax.arrays import UNLABELLED, LogitBank
from sweet_jax.exits.criteria import compute_scores
from sweet_jax.exits.learned import fit_lte_ranges, scale_lte
from sweet_jax.exits.temperatures import (
    TEMPERATURE_RANGE,
    apply_temperatures,
    fit_temperatures,
)


@dataclasses.dataclass(frozen=True)
class CalibratedBank:
    """A logit bank with calibrated exits; made by `Calibration.apply`.

    Attributes:
        bank: the bank, with calibrated logits and scaled learning-to-exit scores
            instead of the raw ones.
        predictions: the class that each exit predicts.
        label_counts: total weight of the examples of each class.
        full: what the full model predicts; None: what the last exit predicts.
    """

    bank: LogitBank
    predictions: Int[np.ndarray, "N E"]
    label_counts: Float[np.ndarray, " C"]
    full: Int[np.ndarray, " N"] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.label_counts)

    def score(self, criterion: str) -> Float32[np.ndarray, "N E"]:
        """Returns the scores that thresholds are compared with (`compute_scores`)."""
        bank = self.bank
        return np.asarray(compute_scores(criterion, bank.logits, bank.lte))


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """The calibration rows of a model and what was fitted on them.

    Attributes:
        bank: outputs on the calibration rows, before temperature. Part 0 is for
            fitting, part 1 for choices that read labels. If all rows are `UNLABELLED`,
            temperatures are 1, and thresholds can be chosen by their cost alone.
        temperatures: the temperature of each exit.
        lte_ranges: lowest and highest learning-to-exit score of each exit; None if
            exits have no learning-to-exit heads.
        costs_E: cost fraction of leaving at each exit (`costs_from_layers`).
        metric: the metric of the task's score.
        full: what the full model predicts on the rows, if promises compare cascades
            with another model than this one: for a rounded model, the model before
            rounding. None: this model's last exit.
    """

    bank: LogitBank
    temperatures: Float32[np.ndarray, " E"]
    lte_ranges: Float32[np.ndarray, "E 2"] | None
    costs_E: Float[np.ndarray, " E"]
    metric: str
    full: Int[np.ndarray, " N"] | None = None

    @classmethod
    def fit(
        cls,
        bank: LogitBank,
        costs_E: Float[np.ndarray, " E"],
        metric: str,
        fit_rows: LogitBank | None = None,
        bounds: tuple[float, float] = TEMPERATURE_RANGE,
    ) -> "Calibration":
        """Fits temperatures and learning-to-exit ranges.

        Args:
            bank: outputs on the calibration rows.
            costs_E: cost fraction of leaving at each exit.
            metric: the metric of the task's score.
            fit_rows: outputs to fit on; None: part 0 of the bank, or without labels
                all of it, for the ranges alone.
            bounds: lowest and highest temperature.

        Raises:
            ValueError: there is no row to fit on, or a score is not finite.
        """
        if fit_rows is None and _is_unlabelled(bank):
            ones = np.ones(bank.num_exits, np.float32)
            return cls(bank, ones, fit_lte_ranges(bank), costs_E, metric)
        rows = bank.select_part(0) if fit_rows is None else fit_rows
        temperatures = fit_temperatures(rows, bounds)
        return cls(bank, temperatures, fit_lte_ranges(rows), costs_E, metric)

    @property
    def num_exits(self) -> int:
        """The number of exits E."""
        return len(self.temperatures)

    @property
    def has_labels(self) -> bool:
        """Whether the calibration rows have labels."""
        return not _is_unlabelled(self.bank)

    def apply(self, bank: LogitBank) -> CalibratedBank:
        """Calibrates any outputs of the model; see `calibrate_bank`."""
        return calibrate_bank(bank, self.temperatures, self.lte_ranges)

    def select_part(self, part: int) -> CalibratedBank:
        """Returns the calibrated rows of one part.

        Raises:
            ValueError: the rows have no labels, or the part has no rows.
        """
        if not self.has_labels:
            raise ValueError(
                "this model was calibrated without labels, so only choices by cost"
                " can be made: ask for a speedup or milliseconds without choose=score,"
                " or train it with data.validation_file or data.calibration_examples"
            )
        bank = self.bank.select_part(part)
        if not len(bank.labels):
            raise ValueError(
                f"calibration has no rows of part {part}: raise"
                " data.calibration_examples"
            )
        full = None if self.full is None else self.full[self.bank.part == part]
        return dataclasses.replace(self.apply(bank), full=full)

    def describe(self) -> dict[str, Any]:
        """Returns the fields of a model description: plain values, without the rows."""
        ranges = () if self.lte_ranges is None else self.lte_ranges.tolist()
        return {
            "metric": self.metric,
            "temperatures": tuple(self.temperatures.tolist()),
            "lte_ranges": tuple((low, high) for low, high in ranges),
            "cost_fractions": tuple(self.costs_E.tolist()),
        }


def calibrate_bank(
    bank: LogitBank,
    temperatures: Float32[np.ndarray, " E"],
    lte_ranges: Float32[np.ndarray, "E 2"] | None = None,
) -> CalibratedBank:
    """Returns the bank with logits and learning-to-exit scores made comparable.

    Args:
        bank: the raw outputs of the model.
        temperatures: each exit's logits are divided by its temperature.
        lte_ranges: each exit's learning-to-exit scores are scaled by its range; None:
            the calibrated bank has no such scores.

    Raises:
        ValueError: the bank is empty, or some of its logits or scores are not finite.
    """
    if not np.any(bank.weights > 0):
        raise ValueError("the logit bank has no rows: check the split it came from")
    finite_NE = np.isfinite(bank.logits).all(axis=2)
    if bank.lte is not None:
        finite_NE &= np.isfinite(bank.lte)
    broken_E = np.sum(~finite_NE, axis=0)
    if broken_E.any():
        raise ValueError(
            f"outputs of exits {np.flatnonzero(broken_E).tolist()} are not finite on"
            f" {broken_E.max()} of {len(bank.labels)} rows: lower the learning rates or"
            " use encoder.dtype=float32"
        )
    logits_NEC = np.asarray(apply_temperatures(bank.logits, temperatures))
    lte_NE = None
    if bank.lte is not None and lte_ranges is not None:
        lte_NE = scale_lte(bank.lte, lte_ranges)
    return CalibratedBank(
        dataclasses.replace(bank, logits=logits_NEC, lte=lte_NE),
        logits_NEC.argmax(axis=2),
        np.bincount(bank.labels, bank.weights, logits_NEC.shape[2]),
    )


def _is_unlabelled(bank: LogitBank) -> bool:
    return bool((bank.part == UNLABELLED).all())
