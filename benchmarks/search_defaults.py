"""Searches the defaults: one change at a time, scored on calibration part 0.

    python benchmarks/search_defaults.py --out=runs/search [--shard=1/2] [--table]

Every trial is a full run of the main job on the embedded task (2,000 examples), with a
seed that no reported number uses. The mean score over exits on calibration part 0
decides; the test split is not read. The two best settings, which one seed could not
separate, run with more seeds. Finished runs are not repeated; the tables of all
finished trials are printed at the end (see docs/defaults.md).
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sweet_jax.arrays import LogitBank

SEEDS = (100, 101, 102)
_BASE = {
    "optim.encoder_learning_rate": 1e-4,
    "optim.exit_learning_rate": 1e-3,
    "train.num_epochs": 3,
    "exits.pooling": "mean",
    "exits.pooler_init": "fresh",
    "exits.init": "random",
}
_CHANGES: list[dict[str, object]] = [
    {},
    {"optim.exit_learning_rate": 1e-4},
    {"optim.exit_learning_rate": 3e-4},
    {"optim.encoder_learning_rate": 5e-5},
    {"optim.encoder_learning_rate": 2e-4},
    {"exits.pooling": "cls"},
    {"exits.pooler_init": "checkpoint"},
    {"train.num_epochs": 2},
]
# Learning rates are searched for the two methods whose exits share an encoder. The
# others use the same; each trial of multi_model would cost one run per member.
_METHODS = ("sweet", "early_exit")
_SHARED = ("optim.exit_learning_rate", "optim.encoder_learning_rate")
# The settings that the first seed could not separate run with every seed.
_FINALISTS: list[dict[str, object]] = [{}, {"optim.exit_learning_rate": 3e-4}]


class Trial(NamedTuple):
    """One run: a method, one change from the base, a seed."""

    method: str
    change: dict[str, object]
    seed: int

    @property
    def name(self) -> str:
        """The trial's directory name."""
        parts = [f"{field.split('.')[1]}={v}" for field, v in self.change.items()]
        seed = [f"s{self.seed}"] * (self.seed != SEEDS[0])
        return "-".join([self.method, *parts, *seed])


def list_trials() -> list[Trial]:
    """Returns all trials, most important first."""
    search = [
        Trial(method, change, SEEDS[0])
        for method in _METHODS
        for change in _CHANGES
        if method == "sweet" or all(field in _SHARED for field in change)
    ]
    final = [
        Trial(method, change, seed)
        for seed in SEEDS[1:]
        for change in _FINALISTS
        for method in _METHODS
    ]
    return search + final


def run_trial(out: Path, trial: Trial) -> None:
    """Runs the main job of a trial in a separate process."""
    command = [
        sys.executable, "-m", "sweet_jax.main",
        f"--config=configs/sweet.py:method={trial.method},seed={trial.seed}",
        f"--workdir={out / trial.name}",
        *(f"--config.{field}={v}" for field, v in (_BASE | trial.change).items()),
    ]  # fmt: skip
    subprocess.run(command, check=True)


def read_scores(workdir: Path) -> list[float] | None:
    """Returns the accuracy of every exit on calibration part 0, if there is a bank."""
    path = workdir / "logits_calibration.npz"
    if not (workdir / "results.json").is_file():
        return None
    bank = LogitBank.load(path).select_part(0)
    return list(np.mean(bank.logits.argmax(2) == bank.labels[:, None], axis=0))


def print_trials(out: Path) -> None:
    """Prints a row per finished trial."""
    print("| method | change from the base | seed | part 0, by exit | mean |")
    print("|---|---|---|---|---|")
    for method, change, seed in list_trials():
        scores = read_scores(out / Trial(method, change, seed).name)
        if scores is not None:
            text = ", ".join(f"{f.split('.')[1]}={v}" for f, v in change.items())
            exits = " ".join(f"{s:.3f}" for s in scores)
            mean = f"{np.mean(scores):.4f}"
            print(f"| {method} | {text or '-'} | {seed} | {exits} | {mean} |")


def print_finalists(out: Path) -> None:
    """Prints means over exits and seeds of the settings that ran with every seed."""
    print("\n| exit learning rate | " + " | ".join(_METHODS) + " | average |")
    print("|---|---|---|---|")
    for change in _FINALISTS:
        means: list[float] = []
        for method in _METHODS:
            banks = [read_scores(out / Trial(method, change, s).name) for s in SEEDS]
            scores = [float(np.mean(b)) if b else np.nan for b in banks]
            means.append(float(np.mean(scores)))
        rate = (_BASE | change)["optim.exit_learning_rate"]
        cells = " | ".join(f"{mean:.4f}" for mean in [*means, float(np.mean(means))])
        print(f"| {rate} | {cells} |")


def main() -> None:
    """Runs the shard's trials and prints the table of all that are finished."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th trial")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    index, count = map(int, arguments.shard.split("/"))
    trials = [] if arguments.table else list_trials()[index - 1 :: count]
    for trial in trials:
        run_trial(arguments.out, trial)
    print_trials(arguments.out)
    print_finalists(arguments.out)


if __name__ == "__main__":
    main()
