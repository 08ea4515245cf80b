r"""Trains SetFit on a csv file and writes its predictions; needs setfit alone.

    python benchmarks/few_data_setfit.py --train=train.csv --test=test.csv \
        --encoder=FOLDER --out=setfit.json [--seed=0] [--max_steps=1600]

`benchmarks.few_data` calls it. Its environment is its own:

    python -m venv setfit && setfit/bin/pip install -r benchmarks/few_data_setfit.txt

All of SetFit's defaults hold but one. Its number of steps grows with the square of the
rows (about 390,000 for 2,500 rows), so `--max_steps` limits it; 0 is no limit.
Pairs are drawn as by default, and the learning rate decays over the steps that are run.
"""

import argparse
import csv
import importlib.metadata
import json
import math
import os
import tempfile
import time
from collections import Counter
from pathlib import Path


def read_rows(path: Path) -> tuple[list[str], list[str]]:
    """Returns the columns text and label."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def count_steps(labels: list[str]) -> int:
    """Returns SetFit's default number of steps: all pairs, the rarer kind repeated.

    A row is also a pair with itself, and a step has 16 pairs.
    """
    sizes = Counter(labels).values()
    similar = sum(n * (n + 1) // 2 for n in sizes)
    unlike = len(labels) * (len(labels) - 1) // 2 - sum(n * (n - 1) // 2 for n in sizes)
    return math.ceil(2 * max(similar, unlike) / 16)


def main() -> None:
    """Trains, predicts the test rows and writes both with the seconds they took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_steps", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets
    import setfit  # pyright: ignore[reportMissingImports]

    texts, labels = read_rows(arguments.train)
    test_texts, _ = read_rows(arguments.test)
    names = sorted(set(labels))
    is_limited = 0 < arguments.max_steps < count_steps(labels)
    numbers = [names.index(label) for label in labels]
    start = time.perf_counter()
    model = setfit.SetFitModel.from_pretrained(
        str(arguments.encoder), local_files_only=True
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = setfit.Trainer(
            model=model,
            args=setfit.TrainingArguments(
                output_dir=folder,
                seed=arguments.seed,
                max_steps=arguments.max_steps if is_limited else -1,
                save_strategy="no",
                report_to="none",
                show_progress_bar=False,
            ),
            train_dataset=datasets.Dataset.from_dict({"text": texts, "label": numbers}),
        )
        trainer.train()
    trained = time.perf_counter()
    predictions = [names[int(number)] for number in model.predict(test_texts)]
    result = {
        "predictions": predictions,
        "train_seconds": trained - start,
        "predict_seconds": time.perf_counter() - trained,
        "steps": trainer.st_trainer.state.global_step,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("setfit", "sentence-transformers", "transformers", "torch")
        },
    }
    arguments.out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
