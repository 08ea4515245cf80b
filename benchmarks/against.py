"""CPU time from text to label: early exit against ONNX Runtime at full depth.

    python benchmarks/against.py --model=RUN/model --int8=FOLDER [--rows=512]
        [--batch_size=32] [--rounds=5] [--speedups 2 3 4] [--jax]

RUN is a finished run, whose test rows are read, and FOLDER is what the command
`sweet-jax export --onnx --int8` made of it. The others are the model up to its last
exit as one graph, run with ONNX Runtime's usual settings: in float32, and in int8 by
its own `quantize_dynamic`. They get the same tokenizer and length-sorted batches that
are as long as their longest row, their best case. With --batch_size=1 every text is
asked for alone.

Everything runs in one thread, and times are CPU seconds of the process, medians over
rounds in which all take turns: so other work on the machine changes them little.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from measuring import print_header, print_row
from onnxruntime.quantization import QuantType, quantize_dynamic

import sweet_jax
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.engine.shapes import Shapes
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.onnx_graphs.segments import make_segment_models
from sweet_jax.runs.workdir import read_settings
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.settings.from_config import from_config_dict

Classify = Callable[[Sequence[str]], list[str]]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--int8", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--speedups", type=float, nargs="+", default=[2.0, 3.0, 4.0])
    parser.add_argument("--jax", action="store_true")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    size = options.batch_size
    theirs = sweet_jax.load(options.model, size)
    settings = from_config_dict(read_settings(options.model.parent))
    rows = make_splits(load_task(settings.data), settings).test
    # Spread over the split, whose rows may be sorted by label.
    chosen = np.linspace(0, len(rows) - 1, options.rows).astype(int)
    texts = [rows.texts[i] for i in chosen]
    labels = [theirs.label_names[i] for i in rows.labels[chosen]]
    contest: dict[str, Classify] = {
        f"ONNX Runtime {precision}, full depth": make_plain(theirs, precision)
        for precision in ("float32", "int8")
    }
    ours = {"onnx int8": sweet_jax.load(options.int8, size)}
    if options.jax:
        ours["jax float32"] = theirs
    for name, classifier in ours.items():
        contest[f"{name}, full depth"] = make_ours(classifier, size, None)
        for speedup in options.speedups:
            contest[f"{name}, {speedup:g}x"] = make_ours(classifier, size, speedup)
    seconds: dict[str, list[float]] = {name: [] for name in contest}
    answers = {name: classify(texts) for name, classify in contest.items()}
    for _ in range(options.rounds):
        for name, classify in contest.items():
            start = time.process_time()
            classify(texts)
            seconds[name].append(time.process_time() - start)
    print(
        f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__},"
        f" {options.rows} rows, batch size {size}, one thread, {options.rounds}"
        " rounds\n"
    )
    base = statistics.median(seconds["ONNX Runtime int8, full depth"])
    print_header("", "CPU seconds", "times as fast as int8 at full depth", "accuracy")
    for name, found in answers.items():
        median = statistics.median(seconds[name])
        accuracy = np.mean([a == b for a, b in zip(found, labels, strict=True)])
        print_row(name, f"{median:.3f}", f"{base / median:.2f}", f"{accuracy:.4f}")


def make_ours(
    classifier: AdaptiveClassifier, size: int, speedup: float | None
) -> Classify:
    """Returns predictions with early exit; None: every layer runs."""

    def classify(texts: Sequence[str]) -> list[str]:
        if size > 1:
            return [p.label for p in classifier.predict(list(texts), speedup=speedup)]
        return [
            p.label for text in texts for p in classifier.predict(text, speedup=speedup)
        ]

    return classify


def make_plain(classifier: AdaptiveClassifier, precision: str) -> Classify:
    """Returns predictions of the whole model, as one graph with usual settings."""
    model, labels = classifier.model, classifier.label_names
    assert isinstance(model, MultiExitClassifier), "multi_model has no whole model"
    whole = model.clone(
        exit_layers=model.exit_layers[-1:], exit_numbers=model.exit_numbers[-1:]
    )
    (graph,) = make_segment_models(whole, classifier.params)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float32.onnx"
        onnx.save(graph, path)
        if precision == "int8":
            target = path.with_name("int8.onnx")
            quantize_dynamic(
                path,
                target,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            path = target
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options)
    used = classifier.engine.shapes
    shapes = Shapes(used.batch_size, used.lengths, used.pad_id, are_fixed=False)

    def classify(texts: Sequence[str]) -> list[str]:
        size = 1 if used.batch_size == 1 else len(texts)
        found: list[str] = []
        for first in range(0, len(texts), size):
            part = list(texts[first : first + size])
            rows = classifier.tokenize(classifier.make_examples(part))
            answers = np.zeros(len(part), int)
            for batch, positions in shapes.make_batches(rows):
                names = ("token_ids", "type_ids", "mask")
                inputs = {name: getattr(batch, name) for name in names}
                (logits_BC,) = session.run(["logits"], inputs)
                answers[positions] = np.asarray(logits_BC).argmax(axis=1)
            found += [labels[i] for i in answers]
        return found

    return classify


if __name__ == "__main__":
    main()
