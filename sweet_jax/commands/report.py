"""Write the report of a finished run again, or compare runs of one task.

    sweet-jax report runs/ONE
    sweet-jax report runs/ONE runs/OTHER --output=comparison

It reads files only. Exit status: 0 written, 2 a wrong input.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser
from sweet_jax.system import process


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="work directory"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="directory of a comparison (default: runs/comparison-TASK-DIGEST)",
    )


def run(options: argparse.Namespace) -> None:
    """Writes the report or the comparison."""
    # Imported here: --help does not need the plotting libraries.
    from sweet_jax.report import (
        ReportError,
        format_comparison,
        format_run,
        write_comparison,
        write_report,
    )

    if len(options.runs) == 1:
        if options.output is not None:
            raise ReportError(
                "--output belongs to a comparison of several runs: the report of one"
                " run is written into its own work directory"
            )
        paths = write_report(options.runs[0])
        process.say(format_run(options.runs[0]))
    else:
        comparison, paths = write_comparison(options.runs, options.output)
        process.say(format_comparison(comparison))
    process.say("\n".join(["", *(f"wrote {path}" for path in paths)]))
