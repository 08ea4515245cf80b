"""`python -m sweet_jax.study STUDY`: puts the finished cells of a study together."""

from collections.abc import Sequence
from pathlib import Path

from sweet_jax import process
from sweet_jax.report import format_study
from sweet_jax.study.outputs import keep_study, write_study


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status, 2 for a user's error."""
    return process.guard(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = process.Parser(
        prog="python -m sweet_jax.study",
        description="Aggregates the finished cells of a study folder, or of a copy of"
        " its small files, and writes study.json, study.html, study.md and plots.",
    )
    parser.add_argument("study", type=Path, metavar="STUDY")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="also copy there what an aggregation reads (small: no weights)",
    )
    options = parser.parse_args(arguments)
    record, paths = write_study(options.study)
    if options.keep is not None:
        keep_study(options.study, options.keep)
    process.say(format_study(record))
    process.say("\n".join(["", *(f"wrote {path}" for path in paths)]))


if __name__ == "__main__":
    process.run(main)
