"""The commands in real processes, started quickly.

A server process imports everything once and forks a child for each command line: absl's
flags are global and ml_collections adds to them while it parses, so one process takes
one command line. jax's backend starts in the children only.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

_SERVER = """
import atexit, json, os, runpy, sys, threading, traceback
import sweet_jax.runs.dry_run, sweet_jax.serving.predict_job, sweet_jax.runs.pipeline
print("ready", flush=True)
for line in sys.stdin:
    arguments, output, name, source = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(source, os.O_RDONLY), 0)
        file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if name != "sweet_jax.main":
            arguments, name = [name, *arguments], "sweet_jax.__main__"
        sys.argv = [name, *arguments]
        status = 0
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        # All that ends a process, but for freeing every object: that takes seconds.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclasses.dataclass
class Running:
    """A command at work.

    Attributes:
        pid: its process.
        output: where its standard output and error go.
    """

    pid: int
    output: Path
    _replies: IO[str]

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Waits for something that the command brings about."""
        end = time.monotonic() + seconds
        while not condition():
            text = self.output.read_text()
            assert Path(f"/proc/{self.pid}").exists(), f"it ended early: {text}"
            assert time.monotonic() < end, f"{seconds} s are over: {text}"
            time.sleep(0.002)

    def finish(self) -> tuple[int, str]:
        """Waits for its end; returns the exit status and the last line it wrote."""
        status = int(self._replies.readline())
        lines = self.output.read_text().strip().splitlines()
        return status, lines[-1] if lines else ""


class MainCommand:
    """Starts `python -m sweet_jax.main`, or another, again and again, one at a time."""

    def __init__(self, folder: Path, cache: Path) -> None:
        """Starts the server; outputs live in the folder, no hub answers."""
        self._folder, self._count = folder, 0
        environment = os.environ | {
            "SWEET_JAX_CACHE": str(cache),
            "HF_HUB_CACHE": str(folder / "hub"),
            # Nothing listens there: what a machine without network sees.
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def start(
        self,
        arguments: list[str],
        name: str = "sweet_jax.main",
        source: str = os.devnull,
    ) -> Running:
        """Starts a command; `finish` it before the next one.

        Args:
            arguments: of the command.
            name: `sweet_jax.main`, or that of a command.
            source: file or named pipe that it has as standard input.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._count += 1
        output = self._folder / f"output_{self._count}.txt"
        output.touch()
        self._server.stdin.write(
            json.dumps([arguments, str(output), name, source]) + "\n"
        )
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        return Running(pid, output, self._server.stdout)

    def run(
        self,
        arguments: list[str],
        name: str = "sweet_jax.main",
        source: str = os.devnull,
    ) -> tuple[int, str]:
        """Runs a command to its end."""
        return self.start(arguments, name, source).finish()

    def close(self) -> None:
        """Ends the server."""
        self._server.communicate()
