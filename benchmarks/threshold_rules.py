r"""Test score and cost of speed-ups chosen on few calibration rows, by two rules.

    python -m benchmarks.threshold_rules RUN

RUN is the work directory of a finished run. Calibration rows are drawn repeatedly from
its bank; as in a run, each draw is split into two parts, calibrated and used to choose
thresholds. `cost` is the most expensive threshold within the speed-up's cost, on all
drawn rows; `score` is the one with the best score within it, on those of part 1. Prints
a Markdown table of scores and costs on all test rows.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import print_header, print_row
from sweet_jax.arrays import LogitBank
from sweet_jax.data.calibration_rows import assign_parts
from sweet_jax.evaluation.curves import make_curve
from sweet_jax.exits.calibration import Calibration
from sweet_jax.system.files import read_object
from sweet_jax.thresholds.budget import choose_speedup
from sweet_jax.thresholds.choice import CHOOSE

NUM_DRAWS = 300
NUM_ROWS = (48, 100, 500)
SPEEDUPS = (1.5, 2.0, 3.0, 4.0)
_CRITERION = "confidence"


def draw_calibrations(
    bank: LogitBank, num_rows: int, num_draws: int, results: dict
) -> Iterator[Calibration]:
    """Yields calibrations that are fitted on rows drawn without replacement."""
    rng = np.random.default_rng(num_rows)
    costs_E = np.array([row["cost_fraction"] for row in results["exits"]])
    for _ in range(num_draws):
        drawn = bank.select(rng.permutation(len(bank.labels))[:num_rows])
        drawn.part[:] = assign_parts(drawn.labels)
        yield Calibration.fit(drawn, costs_E, results["metric"])


def measure(calibration: Calibration, test: LogitBank) -> tuple[np.ndarray, np.ndarray]:
    """Returns test scores and costs, by rule and speed-up."""
    thresholds = [
        choose_speedup(calibration, speedup, _CRITERION, choose).threshold
        for choose in CHOOSE
        for speedup in SPEEDUPS
    ]
    curve = make_curve(
        calibration.apply(test),
        _CRITERION,
        calibration.metric,
        calibration.costs_E,
        np.array(thresholds, np.float32),
    )
    shape = (len(CHOOSE), len(SPEEDUPS))
    return curve.score.reshape(shape), curve.cost_fraction.reshape(shape)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=int, default=NUM_DRAWS)
    options = parser.parse_args()
    results = read_object(options.run / "results.json")
    bank, test = (
        LogitBank.load(options.run / f"logits_{name}.npz")
        for name in ("calibration", "test")
    )
    print(f"{options.draws} draws of calibration rows, thresholds of {_CRITERION}\n")
    print_header(
        "rows",
        "speed-up",
        "budget",
        "rule",
        results["metric"],
        "10th percentile",
        "realised cost",
        "10th to 90th percentile",
    )
    for num_rows in NUM_ROWS:
        calibrations = draw_calibrations(bank, num_rows, options.draws, results)
        measured = [measure(calibration, test) for calibration in calibrations]
        scores, costs = (np.array(values) for values in zip(*measured, strict=True))
        for k, speedup in enumerate(SPEEDUPS):
            for c, choose in enumerate(CHOOSE):
                low, high = np.quantile(costs[:, c, k], (0.1, 0.9))
                print_row(
                    str(num_rows),
                    f"{speedup:g}x",
                    f"{1 / speedup:.3f}",
                    choose,
                    f"{scores[:, c, k].mean():.3f}",
                    f"{np.quantile(scores[:, c, k], 0.1):.3f}",
                    f"{costs[:, c, k].mean():.3f}",
                    f"{low:.3f} to {high:.3f}",
                )


if __name__ == "__main__":
    main()
