r"""Classify a file, or standard input, with a trained model.

    sweet-jax predict --model=RUN/model --threshold=0.9 --input=reviews.txt
    sweet-jax predict --model=RUN/model --speedup=2 --input=a.csv --output=b.jsonl
    cat reviews.txt | sweet-jax predict --model=RUN/model
    sweet-jax predict --model=RUN/model --input=reviews.txt --benchmark
    sweet-jax predict --model=INT8_FOLDER --speedup=2 --input=reviews.txt

The same command resumes an unfinished output file. Exit status: 0 finished, 2 a wrong
input, 75 stopped by SIGTERM, ctrl-C or SIGHUP.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser, read_count, read_fields
from sweet_jax.serving.predict_options import PredictOptions
from sweet_jax.system import process

# Field of the options -> its flag, where the names differ.
_RENAMED = {"source": "input", "input_format": "format"}


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    add = parser.add_argument
    add("--model", type=Path, required=True, help="WORKDIR/model of a run")
    parser.add_fields(PredictOptions, _RENAMED)
    add(
        "--batch_size",
        type=read_count(1, 1 << 16),
        default=32,
        metavar="N",
        help="maximum number of rows in a batch (default: 32)",
    )
    add(
        "--backend",
        metavar="NAME",
        help="jax, onnx or a registered backend (default: onnx for a folder of"
        " `export --onnx`, else jax)",
    )
    add(
        "--threads",
        type=read_count(1, 1024),
        metavar="N",
        help="threads of the backend onnx (default: all cores of the process)",
    )
    add(
        "--precision",
        metavar="NAME",
        help="float32 or int8, for the backend onnx (default: that of --model)",
    )


def run(options: argparse.Namespace) -> None:
    """Writes predictions, or measures the speed."""
    asked = PredictOptions(**read_fields(options, PredictOptions, _RENAMED))
    asked.check(options.model)

    # Imported here: a wrong flag is reported before jax loads.
    import sweet_jax
    from sweet_jax.devices import check_devices, configure_jax
    from sweet_jax.serving.predict_job import benchmark_file, predict_file

    check_devices()
    classifier = sweet_jax.load(
        options.model,
        options.batch_size,
        options.backend,
        options.precision,
        options.threads,
    )
    # Sets the compilation cache, so before anything is compiled.
    configure_jax(classifier.description.matmul_precision)
    if asked.benchmark:
        for line in benchmark_file(classifier, asked):
            process.say(line)
    else:
        process.tell(predict_file(classifier, asked))
