"""Measure what a model does inside: gradient conflict, or attention by constants.

    sweet-jax analyze conflict --run=runs/x
    sweet-jax analyze papa --config=papa
    sweet-jax analyze papa --config=papa:task=cola,encoder=bert-base-uncased

conflict: cosines between the gradients of exits, at the last step of a finished run;
the same as the run's own command with --config.analysis.gradient_conflict=True. It
writes gradient_conflict.json and the report into the run. Earlier steps can only be
measured during training: set that field from the start.

papa: how much of a frozen encoder's attention can be replaced by constants
(docs/papa.md). The same command on the same work directory resumes where it stopped,
and a finished one is shown.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser
from sweet_jax.settings.config_file import read_config
from sweet_jax.settings.papa import papa_from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system import process
from sweet_jax.system.names import describe_unknown

_ANALYSES = ("conflict", "papa")


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "analysis", nargs="?", metavar="ANALYSIS", help="conflict or papa"
    )
    parser.add_argument(
        "--run", type=Path, help="conflict: work directory of a finished run"
    )
    parser.add_config("papa: a name, or the path of a config file")
    parser.add_argument(
        "--workdir",
        type=Path,
        help="papa: its folder (default: runs/papa-TASK-ENCODER-sSEED-DIGEST)",
    )


def run(options: argparse.Namespace) -> None:
    """Measures, and prints the results."""
    name = options.analysis
    if name is None:
        raise SettingsError(f"name an analysis: {' or '.join(_ANALYSES)}; see --help")
    if name not in _ANALYSES:
        raise SettingsError(describe_unknown("analysis", name, _ANALYSES))
    if name == "conflict":
        if options.config_flags or options.workdir is not None:
            raise SettingsError(
                "--config and --workdir belong to `analyze papa`: leave them out"
            )
        _measure_conflict(options.run)
    else:
        if options.run is not None:
            raise SettingsError("--run belongs to `analyze conflict`: leave it out")
        _measure_papa(options.config_flags, options.workdir)


def _measure_conflict(path: Path | None) -> None:
    """Measures a finished run and prints its report."""
    from sweet_jax.runs.workdir import WorkdirError, read_settings
    from sweet_jax.settings.fields import replace_fields, to_dict
    from sweet_jax.settings.from_config import from_config_dict

    if path is None:
        raise SettingsError("--run is missing: give the work directory of a run")
    stored = from_config_dict(read_settings(path))
    wanted = replace_fields(stored, {"analysis.gradient_conflict": True})
    settings = from_config_dict(to_dict(wanted))  # Checked together with the method.
    if not (path / "results.json").is_file():
        raise WorkdirError(f"{path} is not finished: run its command again first")

    from sweet_jax import report
    from sweet_jax.runs import pipeline

    pipeline.run(settings, path)
    process.say(report.format_run(path))


def _measure_papa(config_flags: list[str], workdir: Path | None) -> None:
    """Runs PAPA, or shows what a finished one found."""
    config = read_config(config_flags)
    if "papa" not in config:
        raise SettingsError(
            "--config has no section papa: use --config=papa, or your own copy of it"
        )
    settings, papa = papa_from_config_dict(config)

    # Imported here: a wrong setting is reported before jax loads.
    from sweet_jax.report.papa_page import PAGE, format_papa
    from sweet_jax.runs.papa import run_papa

    path, _ = run_papa(settings, papa, workdir)
    process.say(f"{format_papa(path)}\n\nreport: {path / PAGE}")
