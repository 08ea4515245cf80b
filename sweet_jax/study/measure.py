"""Measures one finished cell, on its test rows and on bootstrap draws of them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sweet_jax.evaluation import cascade, curves, metrics
from sweet_jax.evaluation.statistics import (
    NUM_DRAWS,
    RowDraws,
    resample_curve,
    resample_scores,
)
from sweet_jax.exits.calibration import CalibratedBank, calibrate_bank
from sweet_jax.exits.criteria import FULL, compute_scores
from sweet_jax.study.folder import CellError, FinishedCell

# Steps of the common grid of costs, from exit 0's to the full model's.
_COST_STEPS = 60
# Number of thresholds of the bootstrapped curve, spread over the costs.
_CURVE_THRESHOLDS = 32


@dataclasses.dataclass(frozen=True)
class Measured:
    """Numbers of a run that a study averages and compares, as arrays by name.

    Names: `exits` (score of each exit alone), `area/CRITERION`, `curve/CRITERION`
        (score
    on the grid of costs), and per speed-up s, NaN if s is out of reach:
    `at_cost/CRITERION` (score of the test curve at a cost of exactly 1 / s),
    `speedup/CRITERION` (score with the threshold chosen for s on calibration rows) and
    `cost/CRITERION` (cost of that threshold on the test rows).

    Attributes:
        values: the numbers.
        draws: the same on each draw of test rows, for `exits`, and for the first
            criterion all names but `curve` and `cost`.
    """

    values: dict[str, Float[np.ndarray, " K"]]
    draws: dict[str, Float[np.ndarray, "B K"]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Values that all cells of one task, encoder and size share with the first cell.

    Attributes:
        metric: name of the metric.
        exit_layers: the layer each exit reads.
        row_ids: ids of the test rows.
        labels: labels of the test rows.
        criteria: exit criteria, in the order of the settings.
        targets: target speed-ups.
        draws: bootstrap draws of the test rows.
    """

    metric: str
    exit_layers: tuple[int, ...]
    row_ids: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]
    criteria: tuple[str, ...]
    targets: tuple[float, ...]
    draws: RowDraws

    @classmethod
    def from_cell(cls, cell: FinishedCell, num_draws: int = NUM_DRAWS) -> "Setting":
        """Returns the setting of a cell.

        The name of the task seeds the draws: they are the same for all encoders and
        sizes, but independent between tasks, as averages over tasks require.
        """
        results, bank = cell.results, cell.bank
        digest = hashlib.sha256(cell.entry.task.encode()).digest()
        rng = np.random.default_rng(list(digest[:16]))
        return cls(
            metric=results["metric"],
            exit_layers=tuple(results["exit_layers"]),
            row_ids=bank.row_ids,
            labels=bank.labels,
            criteria=tuple(results["curves"]),
            targets=_list_targets(results),
            draws=RowDraws.make(len(bank.labels), rng, num_draws),
        )

    def check(self, cell: FinishedCell) -> None:
        """Raises CellError unless the cell can be compared with the first one."""
        results, bank = cell.results, cell.bank
        for name, found in (
            ("metric", results["metric"]),
            ("exit_layers", tuple(results["exit_layers"])),
            ("criteria", tuple(results["curves"])),
            ("targets", _list_targets(results)),
        ):
            if found != getattr(self, name):
                raise CellError(
                    f"its {name} {found} are not those of the setting's first cell,"
                    f" {getattr(self, name)}"
                )
        same_rows = np.array_equal(bank.row_ids, self.row_ids)
        if not same_rows or not np.array_equal(bank.labels, self.labels):
            raise CellError("its test rows are not those of the setting's first cell")


def _list_targets(results: dict[str, Any]) -> tuple[float, ...]:
    """Returns the target speed-ups, the same for every criterion."""
    points = next(iter(results["at_speedup"].values()))
    return tuple(float(point["target"]) for point in points)


def make_cost_grid(costs_E: Float[np.ndarray, " E"]) -> Float[np.ndarray, " G"]:
    """Returns costs in equal steps from that of exit 0 to that of running every exit.

    Steps are the same for all methods, so they share the costs up to 1; multi_model
    continues above 1.
    """
    first, last = float(costs_E[0]), float(costs_E[-1])
    if first == last:
        return np.array([first])
    step = (1 - first) / _COST_STEPS
    # The tolerance absorbs rounding errors, so that a grid up to cost 1 ends at 1.
    inner = first + step * np.arange(int((last - first) / step + 1e-9) + 1)
    return inner if last - inner[-1] < 1e-9 else np.append(inner, last)


def measure_cell(cell: FinishedCell, setting: Setting) -> Measured:
    """Computes the numbers of a cell from its bank and results.json.

    Raises:
        CellError: bank and results belong to different runs, or to another setting.
    """
    setting.check(cell)
    try:
        return _measure(cell, setting, _calibrate(cell))
    except ValueError as error:  # Also from evaluation/: no rows, missing scores.
        raise CellError(str(error)) from error


def _measure(
    cell: FinishedCell, setting: Setting, calibrated: CalibratedBank
) -> Measured:
    results = cell.results
    costs_E = get_costs(cell)
    first = setting.criteria[0]
    values = {"exits": np.array([row["score"] for row in results["exits"]], float)}
    for criterion in setting.criteria:
        points = results["at_speedup"][criterion]
        curve = curves.make_curve(calibrated, criterion, setting.metric, costs_E)
        values |= {
            f"area/{criterion}": np.array([results["area"][criterion]], float),
            f"at_cost/{criterion}": curve.read_at(1 / np.array(setting.targets)),
            f"speedup/{criterion}": np.array([p["score"] for p in points], float),
            f"cost/{criterion}": np.array([p["cost_fraction"] for p in points], float),
            f"curve/{criterion}": curve.read_at(make_cost_grid(costs_E)),
        }
    return Measured(values, _resample(cell, setting, calibrated, first))


def get_costs(cell: FinishedCell) -> Float[np.ndarray, " E"]:
    """Returns the cost of leaving at each exit."""
    return np.array([row["cost_fraction"] for row in cell.results["exits"]], float)


def find_degenerate_exits(cell: FinishedCell) -> list[int]:
    """Returns the exits whose score is undefined on the test rows and counts as 0.

    Matthews if only one class is predicted, F1 if class 1 is neither a label nor a
    prediction.
    """
    metric, labels = cell.results["metric"], cell.bank.labels
    answers_NE = cell.bank.logits.argmax(axis=2)
    if metric == "f1":
        return [i for i, a in enumerate(answers_NE.T) if not (labels | a).any()]
    if metric == "matthews":
        return [i for i, a in enumerate(answers_NE.T) if len(np.unique(a)) == 1]
    return []


def _calibrate(cell: FinishedCell) -> CalibratedBank:
    """Returns the calibrated bank, after comparing its scores with results.json."""
    rows, bank = cell.results["exits"], cell.bank
    if bank.num_exits != len(rows):
        raise CellError(f"its bank has {bank.num_exits} exits, its results {len(rows)}")
    temperatures = np.array([row["temperature"] for row in rows], np.float32)
    lte_ranges = None
    if "lte_range" in rows[0]:  # The exits learned to exit.
        lte_ranges = np.array([row["lte_range"] for row in rows], np.float32)
    calibrated = calibrate_bank(bank, temperatures, lte_ranges)
    for i, row in enumerate(rows):
        answers_N = calibrated.predictions[:, i]
        found = metrics.score_predictions(
            cell.results["metric"],
            bank.labels,
            answers_N,
            bank.weights,
            calibrated.bank.logits[:, i],
        )
        if abs(found - row["score"]) > 1e-9:
            raise CellError(
                f"its bank gives exit {i} the score {found:.6f}, its results.json"
                f" {row['score']:.6f}: they belong to different runs"
            )
    return calibrated


def _resample(
    cell: FinishedCell,
    setting: Setting,
    calibrated: CalibratedBank,
    criterion: str,
) -> dict[str, Float[np.ndarray, "B K"]]:
    """Returns the draws of the exits, and of the cascade of a criterion."""
    bank, predictions_NE = calibrated.bank, calibrated.predictions
    scores_NE = np.asarray(compute_scores(criterion, bank.logits, bank.lte))
    costs_E = get_costs(cell)
    num_rows, num_exits, num_classes = bank.logits.shape
    places_N = np.arange(num_rows)

    def find_exits(thresholds: Sequence[float] | np.ndarray) -> Int[np.ndarray, "T N"]:
        thresholds_T = np.array(thresholds, np.float32)
        return np.asarray(cascade.choose_exits(scores_NE, thresholds_T))

    def resample(exits_KN: Int[np.ndarray, "K N"]) -> Float[np.ndarray, "B K"]:
        return resample_scores(
            setting.metric,
            setting.draws,
            bank.labels,
            predictions_NE[places_N, exits_KN].T,
            bank.weights,
            num_classes,
            lambda k: bank.logits[places_N, exits_KN[k]],
        )

    points = cell.results["at_speedup"][criterion]
    reached = [k for k, point in enumerate(points) if point["score"] is not None]
    # null stands for an infinite threshold, which runs every exit.
    thresholds = [points[k]["threshold"] for k in reached]
    at_speedup_BT = np.full((len(setting.draws.counts), len(points)), np.nan)
    if reached:
        at_speedup_BT[:, reached] = resample(
            find_exits([FULL if t is None else t for t in thresholds])
        )
    exact = curves.make_curve(calibrated, criterion, setting.metric, costs_E)
    target_costs = 1 / np.array(setting.targets)
    reachable = np.flatnonzero(np.isfinite(exact.read_at(target_costs)))
    spread = np.linspace(costs_E[0], costs_E[-1], _CURVE_THRESHOLDS)
    wanted = np.concatenate([spread, target_costs[reachable]])
    drawn = np.unique(np.searchsorted(exact.cost_fraction, wanted - 1e-9))
    curve_draws = resample_curve(
        setting.metric,
        setting.draws,
        bank.labels,
        predictions_NE,
        bank.weights,
        num_classes,
        find_exits(exact.threshold[drawn]),
        costs_E,
        bank.logits,
    )
    at_cost_BT = np.full_like(at_speedup_BT, np.nan)
    at_cost_BT[:, reachable] = curve_draws.read_at(target_costs[reachable])
    return {
        "exits": resample(np.indices((num_exits, num_rows))[0]),
        f"at_cost/{criterion}": at_cost_BT,
        f"speedup/{criterion}": at_speedup_BT,
        f"area/{criterion}": curve_draws.compute_areas(float(costs_E[0]))[:, None],
    }
