"""Fine-tune a classifier with exits and measure its speed-accuracy trade-off.

    python -m sweet_jax.main --config=configs/sweet.py
    python -m sweet_jax.main --config=configs/sweet.py:method=early_exit,seed=1
    python -m sweet_jax.main --config=configs/sweet.py --config.optim.clip_norm=0.5
    python -m sweet_jax.main --config=configs/study.py

The same command on the same work directory goes on where it stopped. Exit status: 0
finished, 1 a cell of a study failed, 2 a wrong input, 75 stopped by SIGTERM, ctrl-C or
SIGHUP (run the same command again).
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from sweet_jax.commands.flags import run_command
from sweet_jax.settings.fields import SettingsError
from sweet_jax.settings.resolve import from_config_dict
from sweet_jax.system import process

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Config file.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Where the run lives; empty: runs/...")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what a run would do, then stop.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the other hosts of the run.")


def main() -> int:
    """Runs the command; returns the exit status."""
    if _CONFIG.value is None:
        raise SettingsError(
            "--config is missing: say --config=configs/sweet.py, or another file of"
            " configs/"
        )
    workdir = Path(_WORKDIR.value) if _WORKDIR.value else None
    if "study" in _CONFIG.value:
        from sweet_jax.commands.study import run as run_study

        return run_study(_CONFIG.value, workdir, _DRY_RUN.value)
    settings = from_config_dict(_CONFIG.value)

    # Imported here: a wrong setting is reported before jax loads.
    from sweet_jax.devices import is_first_host, join_hosts
    from sweet_jax.report import format_run
    from sweet_jax.runs import pipeline
    from sweet_jax.runs.dry_run import describe_run

    if _MULTIHOST.value:
        join_hosts()
    if _DRY_RUN.value:
        process.say(describe_run(settings, workdir))
        return 0
    path, _ = pipeline.run(settings, workdir)
    if is_first_host():
        process.say(format_run(path))
        process.say(f"\nreport: {path / 'report.html'}\nmodel:  {path / 'model'}")
    return 0


if __name__ == "__main__":
    run_command(main)
