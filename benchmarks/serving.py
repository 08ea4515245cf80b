"""Expected and measured speed-up of real early exit, and throughput.

    python benchmarks/serving.py [--model=RUN/model] [--data=FILE_OR_TASK] [--rows=1000]
    python benchmarks/serving.py --lines=20000 [--batch_size=64] [--speedup=2]

Without --model, the main job on the embedded task and encoder runs first, unless it is
finished. The first form prints the tables of `serving.measured_speedup`: speed-ups in
layers, FLOPs and seconds for batch sizes 1, 8, 32 and 128. The second predicts this
many lines of text, from tokens to labels, and compares with PyTorch running the full
encoder on length-sorted batches of the same size (needs torch). Run it on otherwise
idle cores.
"""

import argparse
import itertools
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from measuring import print_header, print_row

import sweet_jax
from sweet_jax.data.examples import Examples, make_examples
from sweet_jax.devices import configure_jax
from sweet_jax.export.encoder import export_model
from sweet_jax.runs import pipeline
from sweet_jax.runs.evaluate import load_table
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.serving.measured_speedup import (
    REPEATS,
    format_speedups,
    measure_speedups,
    time_paired,
)
from sweet_jax.settings.from_config import from_config_dict

_EMBEDDED_TASK = "rotten_tomatoes"


def main() -> None:
    """Prints the requested tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", default=_EMBEDDED_TASK)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--lines", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--speedup", type=float, default=2.0)
    options = parser.parse_args()
    configure_jax("default")
    model = options.model or find_embedded_model()
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    )
    if options.lines:
        measure_throughput(model, options)
        return
    classifier = sweet_jax.load(model)
    rows = load_examples(classifier, options.data, options.rows)
    print(f"{len(rows.labels)} rows of {options.data}, {classifier!r}")
    for line in format_speedups(
        measure_speedups(classifier, rows, options.batch_sizes, repeats=options.repeats)
    ):
        print(line, flush=True)


def find_embedded_model() -> Path:
    """Returns the model folder of the main job; runs the job if it is missing."""
    path, _ = pipeline.run(from_config_dict({}))
    return path / "model"


def load_examples(
    classifier: AdaptiveClassifier, data: str, most_rows: int
) -> Examples:
    """Returns the first rows of the data."""
    rows = make_examples(load_table(data), classifier.label_names, False)
    return rows.select(np.arange(min(most_rows, len(rows.labels))))


def measure_throughput(model: Path, options: argparse.Namespace) -> None:
    """Prints lines per second of the cascade, of all layers, and of PyTorch.

    Args:
        model: WORKDIR/model of a run.
        options: options of the command; the data are repeated to get enough lines.
    """
    num_lines, batch_size = options.lines, options.batch_size
    classifier = sweet_jax.load(model, batch_size=batch_size)
    rows = make_examples(load_table(options.data), classifier.label_names, False)
    texts = list(itertools.islice(itertools.cycle(rows.texts), num_lines))
    thresholds = classifier.choose_thresholds(("speedup", options.speedup))
    contenders: dict[str, Callable[[], Any]] = {
        f"sweet_jax, threshold {thresholds[0]:.3f}": lambda: list(
            classifier.answer(texts, thresholds)
        ),
        "sweet_jax, every layer": lambda: classifier.predict(texts),
    }
    with tempfile.TemporaryDirectory() as name:
        export_model(model, Path(name) / "encoder")
        contenders["PyTorch, every layer"] = make_torch_encoder(
            Path(name) / "encoder", texts, batch_size, classifier.description.max_length
        )
        seconds_WR = time_paired(list(contenders.values()), options.repeats)
    medians = [statistics.median(row) for row in seconds_WR.tolist()]
    print_header(
        f"{num_lines} lines, batches of {batch_size}", "seconds", "lines/s", "PyTorch /"
    )
    for contender, seconds in zip(contenders, medians, strict=True):
        print_row(
            contender,
            f"{seconds:.1f}",
            f"{num_lines / seconds:.0f}",
            f"{medians[-1] / seconds:.2f}",
        )
    stats = classifier.stats
    print(f"\nexits {stats['exit_counts']} over all calls")


def make_torch_encoder(
    folder: Path, texts: Sequence[str], batch_size: int, max_length: int
) -> Callable[[], None]:
    """Returns a call that tokenizes the texts and runs the full encoder on them."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

    def run() -> None:
        encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
        order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                batch = tokenizer.pad(
                    {
                        name: [values[i] for i in chosen]
                        for name, values in encoded.items()
                    },
                    return_tensors="pt",
                )
                states = encoder(**batch).last_hidden_state
                mask = batch["attention_mask"][:, :, None]
                ((states * mask).sum(1) / mask.sum(1)).numpy()

    return run


if __name__ == "__main__":
    main()
