"""Fine-tune a classifier with exits and measure its speed-accuracy trade-off.

    sweet-jax train --config=sweet
    sweet-jax train --config=sweet:method=early_exit,seed=1 --workdir=runs/joint
    sweet-jax train --config=sweet --config.optim.clip_norm=0.5
    sweet-jax train --config=study

--config is the name of a config that comes with the package (sweet, early_exit,
multi_model, paper, study) or the path of a file. Any field of it is set with
--config.section.field=value; sweet_jax/settings/fields.py lists all of them.

The same command on the same work directory resumes where it stopped. Exit status: 0
finished, 1 a cell of a study failed, 2 a wrong input, 75 stopped by SIGTERM, ctrl-C or
SIGHUP (run the same command again).
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser
from sweet_jax.settings.config_file import read_config
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system import process


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_config("a name, or the path of a config file")
    parser.add_argument(
        "--workdir",
        type=Path,
        help="folder of the run (default: runs/TASK-ENCODER-METHOD-sSEED-DIGEST)",
    )
    parser.add_switch("dry_run", "show what the run would do, then stop")
    parser.add_switch("multihost", "join the other hosts of the run")


def run(options: argparse.Namespace) -> int:
    """Trains, or runs a study; returns the exit status."""
    config = read_config(options.config_flags)
    if "study" in config:
        from sweet_jax.commands.study import run_config

        return run_config(config, options.workdir, options.dry_run)
    if "papa" in config:
        raise SettingsError(
            "--config is the config of an analysis: use `sweet-jax analyze papa`"
        )
    settings = from_config_dict(config)

    # Imported here: a wrong setting is reported before jax loads.
    from sweet_jax.devices import is_first_host, join_hosts
    from sweet_jax.report import format_run
    from sweet_jax.runs import pipeline
    from sweet_jax.runs.dry_run import describe_run

    if options.multihost:
        join_hosts()
    if options.dry_run:
        process.say(describe_run(settings, options.workdir))
        return 0
    path, _ = pipeline.run(settings, options.workdir)
    if is_first_host():
        process.say(format_run(path))
        process.say(f"\nreport: {path / 'report.html'}\nmodel:  {path / 'model'}")
    return 0
