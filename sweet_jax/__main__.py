"""`python -m sweet_jax COMMAND ...`: the commands by name."""

import runpy
import sys

from sweet_jax.system import process

COMMANDS = ("evaluate", "predict", "export", "convert", "report", "study", "analyze")


def main() -> None:
    """Runs the command that the first argument names."""
    name = next(iter(sys.argv[1:]), None)
    if name not in COMMANDS:
        allowed = ", ".join(COMMANDS)
        process.run(
            lambda: process.report(
                ValueError(f"{name or ''!r} is no command: say one of {allowed}")
            )
        )
    del sys.argv[1]
    runpy.run_module(f"sweet_jax.commands.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
