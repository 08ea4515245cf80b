"""`python -m sweet_jax study STUDY`: puts the finished cells of a study together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweet_jax.report import format_study
from sweet_jax.settings.resolve import study_from_config_dict
from sweet_jax.study.outputs import keep_study, write_study
from sweet_jax.study.plan import default_study_folder, make_plan
from sweet_jax.study.run import describe_plan, run_study
from sweet_jax.system import process


def run(config: Any, workdir: Path | None, dry_run: bool) -> int:
    """Runs a study and reports on it; returns the exit status.

    Args:
        config: with a section `study`.
        workdir: the study's folder; None: `default_study_folder`.
        dry_run: only say what there is to do.

    Raises:
        ValueError: a field or an input is wrong.
    """
    plan = make_plan(*study_from_config_dict(config))
    folder = workdir or default_study_folder(plan)
    if dry_run:
        process.say(describe_plan(plan, folder))
        return 0
    failures = run_study(plan, folder)
    record, _ = write_study(folder)
    process.say(f"{format_study(record)}\n\nreport: {folder / 'study.html'}")
    for failure in failures:
        process.complain(f"failed: {failure}")
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status, 2 for a user's error."""
    return process.guard(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = process.Parser(
        prog="python -m sweet_jax study",
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
