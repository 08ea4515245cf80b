"""Early-exit text classifiers: train, measure, use.

    sweet-jax train --config=sweet
    sweet-jax predict --model=runs/x/model --speedup=2 --input=reviews.txt
    sweet-jax COMMAND --help

`python -m sweet_jax COMMAND` is the same.
"""

import sys
from collections.abc import Sequence

from sweet_jax.system import process

# Command -> its description. Each command is a module of `sweet_jax.commands`.
COMMANDS = {
    "train": "fine-tune a classifier and measure its exits, or run a study",
    "evaluate": "measure a finished run on other data",
    "predict": "classify a file or standard input",
    "export": "write a model that runs without this package",
    "convert": "convert encoders from and to PyTorch, check encoder folders",
    "report": "write a run's report again, or compare runs",
    "study": "aggregate the finished cells of a study",
    "analyze": "measure gradient conflict, or attention by constants (PAPA)",
}
# A study starts these as processes for its cells; the help does not list them.
_INTERNAL = ("study_cell",)


def main() -> None:
    """Runs the command that the first argument names, then exits the process."""
    process.run(lambda: run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int | None:
    """Runs a command.

    Args:
        arguments: the command's name, then its flags.

    Returns:
        The exit status; None is 0.

    Raises:
        ValueError: there is no such command, or a flag is wrong.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        process.say(_format_help())
        return None
    name, *flags = arguments
    if name == "--version":
        import sweet_jax

        process.say(f"sweet_jax {sweet_jax.__version__}")
        return None
    if name not in (*COMMANDS, *_INTERNAL):
        from sweet_jax.system.names import describe_unknown

        raise ValueError(describe_unknown("command", name, COMMANDS))
    return run_command(name, f"sweet-jax {name}", flags)


def run_command(name: str, program: str, flags: Sequence[str]) -> int | None:
    """Runs a command by its module's name; see `run`.

    Args:
        name: the module in `sweet_jax.commands`.
        program: the program's name in help and messages.
        flags: the command's flags.
    """
    # Imported here because `sweet-jax --help` does not need them.
    import importlib

    from sweet_jax.commands.flags import make_parser, start_log

    module = importlib.import_module(f"sweet_jax.commands.{name}")
    options = make_parser(program, module).read(flags)
    start_log(options.verbosity)
    return module.run(options)


def _format_help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join([(__doc__ or "").strip(), "", "commands:", *lines])


if __name__ == "__main__":
    main()
