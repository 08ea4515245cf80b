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

from sweet_jax.commands.flags import Parser, read_count, read_names
from sweet_jax.system import process

_TARGETS = {
    "threshold": "leave at the first exit with this score",
    "speedup": "choose a threshold for this speed-up",
    "milliseconds": "choose one for this mean time per input on this device",
    "max_accuracy_loss": "choose one that loses so little, with probability 0.9",
}


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    add = parser.add_argument
    add("--model", type=Path, required=True, help="WORKDIR/model of a run")
    add("--input", default="-", help="a file, or - for standard input (default)")
    add("--output", type=Path, help="a .jsonl or .csv file (default: the screen)")
    add("--format", default="", help="of the input (default: by its ending)")
    add(
        "--text_columns",
        type=read_names,
        default=(),
        metavar="NAMES",
        help="of a table (default: those of the training, else usual names)",
    )
    add("--id_column", default="", metavar="NAME", help="written beside each answer")
    add(
        "--keep_columns",
        type=read_names,
        default=(),
        metavar="NAMES",
        help="written beside each answer; all: every column",
    )
    add("--criterion", default="confidence", help="whose score decides")
    for name, text in _TARGETS.items():
        add(f"--{name}", type=float, metavar="X", help=text)
    add(
        "--choose",
        default="cost",
        help="for a speedup or milliseconds: cost, the dearest threshold within it"
        " (default); score, the one of the best score",
    )
    add(
        "--batch_size",
        type=read_count(1, 1 << 16),
        default=32,
        metavar="N",
        help="most rows at once (default: 32)",
    )
    # All rows of a chunk are in memory at once.
    add(
        "--chunk_rows",
        type=read_count(1, 1 << 20),
        default=4096,
        metavar="N",
        help="rows between two notes of what is done (default: 4096)",
    )
    add(
        "--csv_formulas",
        default="escape",
        help="escape: cells that a spreadsheet would run get an apostrophe in a csv"
        " (default); keep",
    )
    parser.add_switch("strict", "stop at a row that cannot be used")
    parser.add_switch(
        "benchmark", "only time the first rows: promised and measured speed-ups"
    )


def run(options: argparse.Namespace) -> None:
    """Answers, or times."""
    # Imported here: a wrong flag is reported before jax loads.
    from sweet_jax.serving.predict_options import PredictOptions

    asked = PredictOptions(
        source=options.input,
        output=options.output,
        input_format=options.format,
        text_columns=options.text_columns,
        id_column=options.id_column,
        keep_columns=options.keep_columns,
        targets={name: getattr(options, name) for name in _TARGETS},
        choose=options.choose,
        criterion=options.criterion,
        strict=options.strict,
        chunk_rows=options.chunk_rows,
        csv_formulas=options.csv_formulas,
        benchmark=options.benchmark,
    )
    asked.check(options.model)
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
