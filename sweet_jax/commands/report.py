"""`python -m sweet_jax report RUN`: rewrites a report; with several runs, compares."""

from collections.abc import Sequence
from pathlib import Path

from sweet_jax.report import (
    ReportError,
    format_comparison,
    format_run,
    write_comparison,
    write_report,
)
from sweet_jax.system import process


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status, 2 for a user's error."""
    return process.guard(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = process.Parser(
        prog="python -m sweet_jax report",
        description="Rewrites the report of a finished run, or compares several runs"
        " of one task.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="directory of a comparison (default: runs/comparison-TASK-DIGEST)",
    )
    options = parser.parse_args(arguments)
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


if __name__ == "__main__":
    process.run(main)
