"""Commands run within the process of a test."""

import importlib

from sweet_jax.commands.flags import make_parser
from sweet_jax.system import process


def run_command(name: str, *arguments: object) -> int:
    """Runs a command without a log of its own; returns the exit status."""
    module = importlib.import_module(f"sweet_jax.commands.{name}")
    parser = make_parser(f"sweet-jax {name}", module)
    return process.guard(lambda: module.run(parser.read([*map(str, arguments)])))
