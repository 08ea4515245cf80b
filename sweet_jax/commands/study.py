"""Aggregate the finished cells of a study, or run a study.

    sweet-jax study runs/study
    sweet-jax study runs/study --keep=kept.zip
    sweet-jax study kept.zip
    sweet-jax study --config=study

Writes study.json, study.csv, study.html, study.md and plots into the study's folder. An
archive NAME.zip is unpacked to NAME first. With --config the study runs, as with
`sweet-jax train`.
"""

import argparse
from pathlib import Path
from typing import Any

from sweet_jax.commands.flags import Parser
from sweet_jax.settings.config_file import read_config
from sweet_jax.settings.from_config import study_from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system import process


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "study", type=Path, nargs="?", metavar="STUDY", help="folder or archive"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="NAME.zip",
        help="also write an archive of the files that aggregation reads (small: no"
        " weights), with its report NAME.md and its picture beside it",
    )
    parser.add_config("run the study of this config")
    parser.add_argument("--workdir", type=Path, help="folder to run the study in")
    parser.add_switch("dry_run", "show what the study would do, then stop")


def run(options: argparse.Namespace) -> int:
    """Aggregates or runs a study; returns the exit status."""
    if options.config_flags:
        if options.study or options.keep:
            raise SettingsError(
                "--config runs a study, while STUDY and --keep need one that has run:"
                " give one or the other"
            )
        config = read_config(options.config_flags)
        if "study" not in config:
            raise SettingsError(
                "--config is the config of a single run: use `sweet-jax train`, or"
                " --config=study"
            )
        return run_config(config, options.workdir, options.dry_run)
    if options.workdir is not None or options.dry_run:
        raise SettingsError(
            "--workdir and --dry_run belong to --config: leave them out"
        )
    if options.study is None:
        raise SettingsError("give the folder of a study, or --config=study: see --help")

    # Imported here: a wrong flag is reported before jax loads.
    from sweet_jax.report import format_study
    from sweet_jax.study.archive import open_study
    from sweet_jax.study.outputs import keep_study, write_study

    folder = open_study(options.study)
    record, paths = write_study(folder)
    if options.keep is not None:
        paths += keep_study(folder, record, options.keep)
    process.say(format_study(record))
    process.say("\n".join(["", *(f"wrote {path}" for path in paths)]))
    return 0


def run_config(config: Any, workdir: Path | None, dry_run: bool) -> int:
    """Runs a study and reports on it; returns the exit status.

    Args:
        config: a config with a section `study`.
        workdir: the study's folder; None: `default_study_folder`.
        dry_run: only show what the study would do.

    Raises:
        ValueError: a field or an input is wrong.
    """
    base, study = study_from_config_dict(config)

    # Imported here: a wrong field is reported before jax loads.
    from sweet_jax.report import format_study
    from sweet_jax.study.outputs import write_study
    from sweet_jax.study.plan import default_study_folder, make_plan
    from sweet_jax.study.run import describe_plan, run_study

    plan = make_plan(base, study)
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
