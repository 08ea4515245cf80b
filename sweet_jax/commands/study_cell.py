"""The process of one cell: its settings on standard input, its work directory a flag.

Not a command for people: `sweet_jax.main` with a study's config starts it.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from absl import flags

from sweet_jax.commands.flags import run_command
from sweet_jax.settings.resolve import from_config_dict
from sweet_jax.system.files import take_lock

# A killed study leaves its cell a moment to save; whoever takes the cell over waits.
_LOCK_SECONDS = 120.0

_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)


def main() -> None:
    """Runs the cell; it ends as `sweet_jax.main` does."""
    folder = Path(_WORKDIR.value)
    settings = from_config_dict(json.load(sys.stdin))
    threading.Thread(
        target=_stop_with_parent, args=(os.getppid(),), daemon=True
    ).start()
    _wait_for_lock(folder / ".lock")

    from sweet_jax.runs import pipeline

    pipeline.run(settings, folder, quiet=True)


def _stop_with_parent(parent: int) -> None:
    """Asks this process to stop once the study that started it is gone.

    A study killed outright tells nobody; a cell that went on would meet its successor.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_lock(path: Path) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while path.exists() and time.monotonic() < end:
        if lock := take_lock(path):
            lock.close()
            return
        time.sleep(1)


if __name__ == "__main__":
    run_command(main)
