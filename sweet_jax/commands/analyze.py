"""Measure gradient conflict at the last step of a finished run.

    sweet-jax analyze --run=runs/x

The same as the run's own command with --config.analysis.gradient_conflict=True. Writes
gradient_conflict.json and the report into the run. Earlier steps can only be measured
during training: set that field from the start.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser
from sweet_jax.runs.workdir import WorkdirError, read_settings
from sweet_jax.settings.fields import replace_fields, to_dict
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.system import process


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "--run", type=Path, required=True, help="work directory of a finished run"
    )


def run(options: argparse.Namespace) -> None:
    """Measures the run and prints its report."""
    path: Path = options.run
    stored = from_config_dict(read_settings(path))
    wanted = replace_fields(stored, {"analysis.gradient_conflict": True})
    settings = from_config_dict(to_dict(wanted))  # Checked together with the method.
    if not (path / "results.json").is_file():
        raise WorkdirError(f"{path} is not finished: run its command again first")

    from sweet_jax import report
    from sweet_jax.runs import pipeline

    pipeline.run(settings, path)
    process.say(report.format_run(path))
