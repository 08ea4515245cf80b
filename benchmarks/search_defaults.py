"""The search behind the defaults: one change at a time, judged on calibration part 0.

    python benchmarks/search_defaults.py --out=runs/search [--shard=1/2] [--table]

Every row is a whole run of the main job on the embedded task (2,000 examples) with a
seed that no reported figure uses. Only calibration part 0 is read here: the mean score
over the exits decides; the test split is not looked at. Finished runs are not repeated;
the table of all finished rows is printed at the end (docs/defaults.md holds it).
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from sweet_jax.arrays import LogitBank

SEED = 100
_BASE = {
    "optim.encoder_learning_rate": 1e-4,
    "optim.exit_learning_rate": 1e-3,
    "train.num_epochs": 3,
    "exits.pooling": "mean",
    "exits.pooler_init": "fresh",
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
# Learning rates are searched for both methods whose exits share an encoder; the rest,
# and multi_model, whose members cost a run each, follow.
_METHODS = ("sweet", "early_exit")
_SHARED = ("optim.exit_learning_rate", "optim.encoder_learning_rate")


def list_trials() -> list[tuple[str, dict[str, object]]]:
    """Returns (method, change from the base), most telling first."""
    return [
        (method, change)
        for method in _METHODS
        for change in _CHANGES
        if method == "sweet" or all(field in _SHARED for field in change)
    ]


def name_trial(method: str, change: dict[str, object]) -> str:
    """Returns the trial's directory name."""
    parts = [f"{field.split('.')[1]}={value}" for field, value in change.items()]
    return "-".join([method, *parts])


def run_trial(out: Path, method: str, change: dict[str, object]) -> None:
    """Runs the main job of a trial in a process of its own."""
    fields = _BASE | change
    command = [
        sys.executable, "-m", "sweet_jax.main",
        f"--config=configs/sweet.py:method={method},seed={SEED}",
        f"--workdir={out / name_trial(method, change)}",
        *(f"--config.{field}={value}" for field, value in fields.items()),
    ]  # fmt: skip
    subprocess.run(command, check=True)


def read_scores(workdir: Path) -> list[float] | None:
    """Returns the accuracy of every exit on calibration part 0, if there is a bank."""
    path = workdir / "logits_calibration.npz"
    if not (workdir / "results.json").is_file():
        return None
    bank = LogitBank.load(path).select_part(0)
    return list(np.mean(bank.logits.argmax(2) == bank.labels[:, None], axis=0))


def main() -> None:
    """Runs the shard's trials and prints the table of all that are finished."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th trial")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    index, count = map(int, arguments.shard.split("/"))
    trials = [] if arguments.table else list_trials()[index - 1 :: count]
    for method, change in trials:
        run_trial(arguments.out, method, change)
    print("| method | change from the base | part 0, by exit | mean |")
    print("|---|---|---|---|")
    for method, change in list_trials():
        scores = read_scores(arguments.out / name_trial(method, change))
        if scores is not None:
            text = ", ".join(f"{f.split('.')[1]}={v}" for f, v in change.items())
            exits = " ".join(f"{s:.3f}" for s in scores)
            print(f"| {method} | {text or '-'} | {exits} | {np.mean(scores):.3f} |")


if __name__ == "__main__":
    main()
