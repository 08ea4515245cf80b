"""`python -m sweet_jax.report RUN`: rewrites a report; with several runs, compares."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sweet_jax.files import FileError
from sweet_jax.report import (
    ReportError,
    format_comparison,
    format_run,
    write_comparison,
    write_report,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status, 2 for a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m sweet_jax.report",
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
    try:
        if len(options.runs) == 1:
            if options.output is not None:
                raise ReportError(
                    "--output belongs to a comparison of several runs: the report of"
                    " one run is written into its own work directory"
                )
            paths = write_report(options.runs[0])
            print(format_run(options.runs[0]))
        else:
            comparison, paths = write_comparison(options.runs, options.output)
            print(format_comparison(comparison))
    except (FileError, OSError) as error:
        # An OSError is the disk's: no permission, no space.
        text = str(error)
        if isinstance(error, OSError):
            text = f"{error.filename}: {error.strerror}: the report is not written"
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        return 2
    print("", *(f"wrote {path}" for path in paths), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
