"""Internal command: runs one cell of a study, started by the study's process.

It reads the cell's settings from standard input.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from sweet_jax.commands.flags import Parser
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.system.files import take_lock

# The cells of a killed study need a moment to save; a new process waits for the lock.
_LOCK_SECONDS = 120.0


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_argument("--workdir", type=Path, required=True)


def run(options: argparse.Namespace) -> None:
    """Runs the cell."""
    folder: Path = options.workdir
    settings = from_config_dict(json.load(sys.stdin))
    threading.Thread(
        target=_stop_with_parent, args=(os.getppid(),), daemon=True
    ).start()
    _wait_for_lock(folder / ".lock")

    from sweet_jax.runs import pipeline

    pipeline.run(settings, folder, quiet=True)


def _stop_with_parent(parent: int) -> None:
    """Asks this process to stop once the study that started it has ended.

    A killed study cannot stop its cells, and a restarted study would run them again.
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
