"""Measure a finished run on other data, with its own calibration and thresholds.

    sweet-jax evaluate --run=runs/x --data=reviews.jsonl
    sweet-jax evaluate --run=runs/x --data=imdb --text_columns=text

Writes results.json, curves.npz, the logit bank and a report to
RUN/evaluations/NAME. Nothing is fitted on the new rows.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser, read_names
from sweet_jax.system import process, stopping


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "--run", type=Path, required=True, help="work directory of a finished run"
    )
    parser.add_argument(
        "--data",
        required=True,
        help="a labelled file, a folder of them, or the name of a task",
    )
    parser.add_argument(
        "--output", type=Path, help="where to write (default: in the run)"
    )
    parser.add_argument(
        "--text_columns",
        type=read_names,
        default=(),
        metavar="NAMES",
        help="one or two columns (default: those of the run)",
    )
    parser.add_argument(
        "--label_column",
        default="",
        metavar="NAME",
        help="the column of labels (default: that of the run)",
    )


def run(options: argparse.Namespace) -> None:
    """Evaluates the run and writes the results."""
    from sweet_jax.report import format_summary
    from sweet_jax.runs.evaluate import evaluate_on

    results, path = evaluate_on(
        options.run,
        options.data,
        options.text_columns,
        options.label_column,
        options.output,
    )
    stopping.finish(0)  # All is written: a signal only speeds up the exit.
    process.say(format_summary(results))
    process.say(f"\nreport: {path / 'report.html'}")
