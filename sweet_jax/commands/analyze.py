"""Measure gradient conflict of a finished run, at what is left of it: its last step.

    python -m sweet_jax analyze --run=runs/x

The same as the run's own command with --config.analysis.gradient_conflict=True. Writes
gradient_conflict.json and the report into the run. Steps before the last are measured
while training goes on, where that setting is on from the start.
"""

from pathlib import Path

from absl import flags

from sweet_jax.commands.flags import run_command
from sweet_jax.runs.workdir import WorkdirError, read_settings
from sweet_jax.settings.fields import SettingsError, replace_fields, to_dict
from sweet_jax.settings.resolve import from_config_dict
from sweet_jax.system import process

_RUN = flags.DEFINE_string("run", "", "Work directory of a finished run.")


def main() -> int:
    """Runs the command; returns the exit status."""
    if not _RUN.value:
        raise SettingsError("--run is missing: see --help")
    path = Path(_RUN.value)
    stored = from_config_dict(read_settings(path))
    wanted = replace_fields(stored, {"analysis.gradient_conflict": True})
    settings = from_config_dict(to_dict(wanted))  # Checked together with the method.
    if not (path / "results.json").is_file():
        raise WorkdirError(f"{path} is not finished: run its command again first")

    from sweet_jax import report
    from sweet_jax.runs import pipeline

    pipeline.run(settings, path)
    process.say(report.format_run(path))
    return 0


if __name__ == "__main__":
    run_command(main)
