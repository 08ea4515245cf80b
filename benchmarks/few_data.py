r"""Trains classifiers with exits, and SetFit, on little data of many tasks.

    python -m benchmarks.few_data --tasks=tasks --out=few_data --score=development \
        --names=banking77,trec --sizes=16x,1000 --seeds=100 \
        --methods=sweet,early_exit --recipes=random:1e-4:1e-3:0:last
    python -m benchmarks.few_data ... --score=test --methods=sweet,setfit \
        --setfit=setfit/bin/python --max_steps=1600
    python -m benchmarks.few_data_table few_data/runs.jsonl

Every task, size, seed, method and recipe is one run and one line of OUT/runs.jsonl;
runs that have a line are not repeated. docs/few-data-protocol.md says which runs
decide what.

A size is a number of rows, stratified, or of rows per class (`16x`). All methods train
on the same rows, which OUT/rows keeps. A fixed thousand of the training rows (at most a
fifth) is set apart before: the exits are calibrated on them, and with
`--score=development` they are also scored; the test file is then not opened.

A recipe is INIT:ENCODER_RATE:EXIT_RATE:LEAST_STEPS:SELECT: the values of exits.init,
the two learning rates and train.select. Training takes 3 epochs, or more until it has
LEAST_STEPS steps; with `:contrastive` at the end of the recipe, the more are
contrastive epochs before the 3, and with a number there are so many contrastive steps
before.
"""

import argparse
import csv
import dataclasses
import datetime
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import sweet_jax
from benchmarks.few_data_tasks import TASKS
from sweet_jax.arrays import LogitBank
from sweet_jax.data.hold_out import order_stratified
from sweet_jax.evaluation.metrics import score_predictions
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.settings.fields import EncoderSettings

_LEAST_EPOCHS = 3
_BATCH_SIZE = 16
_MOST_CALIBRATION, _CALIBRATION_SHARE = 1000, 5
SETFIT = "setfit"
TableRow = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        task: a name of `few_data_tasks.TASKS`.
        size: rows (`1000`) or rows per class (`16x`).
        seed: chooses the rows and everything in training.
        method: a label of a method, or `setfit`.
        recipe: see above; for SetFit its limit of steps.
        score: `development` or `test`.
    """

    task: str
    size: str
    seed: int
    method: str
    recipe: str
    score: str

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        text = "-".join(map(str, dataclasses.astuple(self)))
        return "".join(c if c.isalnum() or c in "-.=" else "_" for c in text)


def parse_recipe(recipe: str, num_rows: int) -> dict[str, Any]:
    """Returns the settings that a recipe means for a number of training rows."""
    init, encoder_rate, exit_rate, least_steps, select, *fill = recipe.split(":")
    steps_per_epoch = math.ceil(num_rows / _BATCH_SIZE)
    num_epochs = max(_LEAST_EPOCHS, math.ceil(int(least_steps) / steps_per_epoch))
    contrastive = 0
    if fill == ["contrastive"]:
        contrastive = num_epochs - _LEAST_EPOCHS
        num_epochs = _LEAST_EPOCHS
    elif fill:
        contrastive = math.ceil(int(fill[0]) / steps_per_epoch)
    return {
        "exits.init": init,
        "encoder_learning_rate": float(encoder_rate),
        "exit_learning_rate": float(exit_rate),
        "num_epochs": num_epochs,
        "contrastive_epochs": contrastive,
        "select": select,
    }


def split_pool(rows: list[TableRow]) -> tuple[list[TableRow], list[TableRow]]:
    """Returns the rows to choose training rows from, and the calibration rows."""
    order = order_stratified(_number_labels(rows), np.random.default_rng(0))
    taken = min(_MOST_CALIBRATION, len(rows) // _CALIBRATION_SHARE)
    return [rows[i] for i in order[taken:]], [rows[i] for i in order[:taken]]


def choose_rows(pool: list[TableRow], size: str, seed: int) -> list[TableRow]:
    """Returns training rows; of one seed, a larger set contains a smaller one.

    Args:
        pool: the rows to choose from.
        size: rows, stratified, or with an `x` rows of each class: all of a class that
            has fewer.
        seed: decides which rows.
    """
    labels, rng = _number_labels(pool), np.random.default_rng(seed)
    if not size.endswith("x"):
        return [pool[i] for i in order_stratified(labels, rng)[: int(size)]]
    order = rng.permutation(len(pool))
    shots = int(size.removesuffix("x"))
    chosen = [order[labels[order] == c][:shots] for c in np.unique(labels)]
    return [pool[i] for i in np.sort(np.concatenate(chosen))]


def write_rows(tasks: Path, out: Path, cell: Cell) -> tuple[Path, Path, int]:
    """Writes the training and calibration rows of a run.

    Returns:
        Both files and the number of training rows.
    """
    pool, calibration = split_pool(_read_csv(tasks / cell.task / "train.csv"))
    train = choose_rows(pool, cell.size, cell.seed)
    paths = (
        out / "rows" / f"{cell.task}-{cell.size}-{cell.seed}.csv",
        out / "rows" / f"{cell.task}-calibration.csv",
    )
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, rows in zip(paths, (train, calibration), strict=True):
        _write_csv(path, rows)
    return *paths, len(train)


def run_ours(cell: Cell, tasks: Path, out: Path) -> dict[str, Any]:
    """Trains a classifier with exits; returns what is recorded of it."""
    train, calibration, num_rows = write_rows(tasks, out, cell)
    is_test = cell.score == "test"
    task = TASKS[cell.task]
    workdir = out / "work" / cell.name
    run = sweet_jax.train(
        train,
        # Development reads no test rows, but a run must have some.
        test=tasks / cell.task / "test.csv" if is_test else calibration,
        text=task.columns,
        label="label",
        method=cell.method,
        workdir=workdir,
        quiet=True,
        validation_file=str(calibration),
        metric=task.metric,
        seed=cell.seed,
        **{"evaluate.baselines": is_test, "evaluate.measure_costs": False},
        **parse_recipe(cell.recipe, num_rows),
    )
    results = run.results
    record: dict[str, Any] = {
        "num_rows": num_rows,
        "num_classes": len(results["label_names"]),
        "costs": [row["cost_fraction"] for row in results["exits"]],
        "seconds": results["seconds"]["train"] + results["seconds"]["compile"],
        "baselines": results.get("baselines"),
    }
    if is_test:
        bank = LogitBank.load(workdir / "logits_test.npz")
        record["num_test_rows"] = len(bank.labels)
        record["scores"] = [row["score"] for row in results["exits"]]
        record["correct"] = [
            pack(bank.logits[:, exit].argmax(1) == bank.labels)
            for exit in range(bank.num_exits)
        ]
    else:
        bank = LogitBank.load(workdir / "logits_calibration.npz")
        record["scores"] = _score_exits(task.metric, bank)
        for part in (0, 1):
            scores = _score_exits(task.metric, bank.select_part(part))
            record[f"scores_part{part}"] = scores
    shutil.rmtree(workdir)  # 100 MB; the same command makes it again.
    return record


def _score_exits(metric: str, bank: LogitBank) -> list[float]:
    """Returns the score of each exit alone."""
    return [
        score_predictions(metric, bank.labels, logits_NC.argmax(1))
        for logits_NC in np.moveaxis(bank.logits, 1, 0)
    ]


def run_setfit(cell: Cell, tasks: Path, out: Path, python: str) -> dict[str, Any]:
    """Trains SetFit in its own environment; returns what is recorded of it."""
    train, calibration, num_rows = write_rows(tasks, out, cell)
    is_test = cell.score == "test"
    test = tasks / cell.task / "test.csv" if is_test else calibration
    answer = out / f"setfit-{cell.name}.json"
    subprocess.run(
        [
            python, str(Path(__file__).with_name("few_data_setfit.py")),
            f"--train={train}", f"--test={test}", f"--out={answer}",
            f"--encoder={find_encoder(EncoderSettings())}", f"--seed={cell.seed}",
            f"--max_steps={cell.recipe}",
        ],
        check=True,
    )  # fmt: skip
    result = json.loads(answer.read_text())
    answer.unlink()
    labels = [row["label"] for row in _read_csv(test)]
    correct = np.array(result["predictions"]) == np.array(labels)
    return {
        "num_rows": num_rows,
        "num_test_rows": len(labels),
        "num_classes": len({row["label"] for row in _read_csv(train)}),
        "costs": [1.0],
        "seconds": result["train_seconds"],
        "steps": result["steps"],
        "versions": result["versions"],
        "scores": [float(correct.mean())],
        "correct": [pack(correct)],
    }


def pack(correct: np.ndarray) -> str:
    """Returns booleans as hexadecimal digits, for `unpack`."""
    return np.packbits(correct).tobytes().hex()


def unpack(digits: str) -> np.ndarray:
    """Returns the booleans, and up to seven False behind them."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8)).astype(bool)


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Returns the recorded runs, an empty list if there is no file."""
    return (
        [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []
    )


def list_cells(arguments: argparse.Namespace) -> list[Cell]:
    """Returns the runs that the flags ask for: every combination."""
    cells = [
        Cell(task, size, int(seed), method, recipe, arguments.score)
        for seed in arguments.seeds
        for task in arguments.names
        for size in arguments.sizes
        for method in arguments.methods
        for recipe in (
            [str(arguments.max_steps)] if method == SETFIT else arguments.recipes
        )
    ]
    # SetFit has no way to read pairs of texts.
    return [
        cell
        for cell in cells
        if cell.method != SETFIT or len(TASKS[cell.task].columns) == 1
    ]


def _number_labels(rows: list[TableRow]) -> np.ndarray:
    return np.unique([row["label"] for row in rows], return_inverse=True)[1]


def _read_csv(path: Path) -> list[TableRow]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_csv(path: Path, rows: list[TableRow]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    several = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--tasks", type=Path, required=True, help="folder of tasks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--score", choices=("development", "test"), required=True)
    parser.add_argument("--names", required=True, help="of tasks", **several)
    parser.add_argument("--sizes", required=True, help="rows, or 16x", **several)
    parser.add_argument("--seeds", required=True, **several)
    parser.add_argument("--methods", default=["sweet"], **several)
    parser.add_argument("--recipes", default=["random:1e-4:1e-3:0:last"], **several)
    parser.add_argument("--setfit", default=sys.executable, help="python with setfit")
    parser.add_argument("--max_steps", type=int, default=0, help="of SetFit")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in TASKS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(TASKS)}")
    record_file = arguments.out / "runs.jsonl"
    fields = [field.name for field in dataclasses.fields(Cell)]
    done = {Cell(*(run[field] for field in fields)) for run in read_runs(record_file)}
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    cells = [cell for cell in list_cells(arguments) if cell not in done]
    for number, cell in enumerate(cells, 1):
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        if cell.method == SETFIT:
            found = run_setfit(cell, arguments.tasks, arguments.out, arguments.setfit)
        else:
            found = run_ours(cell, arguments.tasks, arguments.out)
        line = dataclasses.asdict(cell) | found | {"started": started, "commit": commit}
        with record_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{number}/{len(cells)} {cell.name}", flush=True)


if __name__ == "__main__":
    main()
