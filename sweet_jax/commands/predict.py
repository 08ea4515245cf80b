r"""Classify a file, or standard input, with a trained model.

    sweet-jax predict --model=RUN/model --threshold=0.9 --input=reviews.txt
    sweet-jax predict --model=RUN/model --speedup=2 --input=a.csv --output=b.jsonl
    cat reviews.txt | sweet-jax predict --model=RUN/model
    sweet-jax predict --model=RUN/model --input=reviews.txt --benchmark

An output file that is not finished is gone on with by the same command. Exit status: 0
finished, 2 a wrong input, 75 stopped by SIGTERM, ctrl-C or SIGHUP.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser, read_count, read_fields
from sweet_jax.serving.predict_options import PredictOptions
from sweet_jax.system import process

# Fields of the options whose flags have another name.
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
        help="most rows at once (default: 32)",
    )


def run(options: argparse.Namespace) -> None:
    """Answers, or times."""
    asked = PredictOptions(**read_fields(options, PredictOptions, _RENAMED))
    asked.check(options.model)

    # Imported here: a wrong flag is reported before jax loads.
    import sweet_jax
    from sweet_jax.devices import check_devices, configure_jax
    from sweet_jax.serving.predict_job import benchmark_file, predict_file

    check_devices()
    classifier = sweet_jax.load(options.model, batch_size=options.batch_size)
    # Before anything is compiled: what is in the cache already is not compiled again.
    configure_jax(classifier.description.matmul_precision)
    if asked.benchmark:
        for line in benchmark_file(classifier, asked):
            process.say(line)
    else:
        process.tell(predict_file(classifier, asked))
