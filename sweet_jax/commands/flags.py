"""The command line parser, the help format and the log that all commands share."""

import argparse
import dataclasses
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, get_type_hints

from absl import flags

from sweet_jax.settings.config_file import split_names
from sweet_jax.system.files import show
from sweet_jax.system.names import describe_unknown

_PACKAGE = str(Path(__file__).parents[1])
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}


class Command(Protocol):
    """A module of this package; its docstring is the first part of --help."""

    def add_flags(self, parser: "Parser") -> None:
        """Adds the command's flags."""
        ...

    def run(self, options: argparse.Namespace) -> int | None:
        """Runs the command; returns the exit status, None for 0."""
        ...


class Parser(argparse.ArgumentParser):
    """The parser of a command. Its help begins with the command's docstring."""

    def __init__(self, program: str, text: str) -> None:
        """Adds the flags that every command has; `text` begins the help."""
        super().__init__(
            prog=program,
            description=text,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--verbosity",
            type=int,
            default=0,
            metavar="N",
            help="-1: warnings only; 0: progress, too (default); 1: more",
        )
        self._takes_config = False
        self._switches: set[str] = set()

    def add_config(self, help: str) -> None:
        """Adds `--config=FILE` and `--config.section.field=value`, kept unparsed."""
        self._takes_config = True
        self.add_argument("--config", metavar="CONFIG", help=help)
        self.set_defaults(config_flags=[])

    def add_switch(self, name: str, help: str) -> None:
        """Adds a flag that is on as `--name` or `--name=true`, off as `--noname`."""
        self._switches.add(name)
        self.add_argument(f"--{name}", default=False, type=_read_boolean, help=help)

    def add_fields(self, kind: type, rename: Mapping[str, str]) -> None:
        """Adds a flag for each field of a dataclass of options.

        The type of a field decides how its flag is parsed; the help is the field's text
        under `Attributes:` in the docstring of the class. `read_fields` is the inverse.

        Args:
            kind: the dataclass.
            rename: field -> the name of its flag, where they differ.
        """
        helps, types = _read_attributes(kind), get_type_hints(kind)
        takes: dict[Any, dict[str, Any]] = {
            str: {"metavar": "TEXT"},
            int: {"type": int, "metavar": "N"},
            float | None: {"type": float, "metavar": "X"},
            Path | None: {"type": _read_path, "metavar": "PATH"},
            tuple[str, ...]: {"type": read_names, "metavar": "NAMES"},
        }
        for field in dataclasses.fields(kind):
            name, help = rename.get(field.name, field.name), helps[field.name]
            if types[field.name] is bool:
                self.add_switch(name, help)
                continue
            if field.default not in ("", None, ()):
                help += f" (default: {field.default})"
            self.add_argument(
                f"--{name}",
                default=field.default,
                help=help.replace("%", "%%"),
                **takes[types[field.name]],
            )

    def format_help(self) -> str:
        """Returns the command's description with examples, then its flags."""
        formatter = self._get_formatter()
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        return f"{(self.description or '').strip()}\n\n{formatter.format_help()}"

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Returns the options.

        Raises:
            ValueError: an argument is unknown, missing or malformed.
        """
        try:
            arguments = flags.FlagValues().read_flags_from_files(
                list(arguments), force_gnu=False
            )
        except (flags.Error, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--flagfile: {error}: see --help") from error
        end = arguments.index("--") if "--" in arguments else len(arguments)
        if {"-h", "--help"} & set(arguments[:end]):  # Even if other flags are wrong.
            self.print_help()
            self.exit(0)
        arguments = [*map(self._spell, arguments[:end]), *arguments[end:]]
        config: list[str] = []
        if self._takes_config:
            config, arguments = _take_config(arguments)
        options, unknown = self.parse_known_args(arguments)
        if self._takes_config:
            options.config_flags = config
        if not unknown:
            return options
        name = unknown[0].partition("=")[0]
        if not name.startswith("-"):
            raise ValueError(f"unexpected argument {show(unknown[0])!r}: see --help")
        known = [o for action in self._actions for o in action.option_strings]
        raise ValueError(describe_unknown("flag", show(name), known))

    def _spell(self, argument: str) -> str:
        """Returns a flag as `--name`, a switch with its value.

        As in absl, flags may have one dash, and `--noname` turns a switch off. A name
        may have `-` in place of `_`.
        """
        match = re.fullmatch(r"(?s)--?([a-z][\w-]+)(=.*)?", argument)
        if match is None:  # It may be a config field, which contains a dot.
            return re.sub(r"^-(?=[a-z_]{2})", "--", argument)
        name, value = match[1].replace("-", "_"), match[2] or ""
        if name in self._switches:
            return f"--{name}{value or '=true'}"
        positive = re.sub("^no_?", "", name)
        if not value and positive in self._switches:
            return f"--{positive}=false"
        known = f"--{name}" in self._option_string_actions
        return f"--{name if known else match[1]}{value}"

    def error(self, message: str) -> NoReturn:
        """Raises ValueError, which is printed as one line."""
        missing = "the following arguments are required: "
        if message.startswith(missing):
            message = f"{message.removeprefix(missing)} is missing"
        message = re.sub(r"^argument (-\S+): ", r"\1: ", message)
        raise ValueError(f"{show(message)}: see --help")


def read_fields(
    options: argparse.Namespace, kind: type, rename: Mapping[str, str]
) -> dict[str, Any]:
    """Returns field -> value for the flags that `Parser.add_fields` has added."""
    return {
        field.name: getattr(options, rename.get(field.name, field.name))
        for field in dataclasses.fields(kind)
    }


def _read_attributes(kind: type) -> dict[str, str]:
    """Returns attribute -> its text in the docstring of a class."""
    _, _, listed = (kind.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", listed, re.MULTILINE)
    return {
        name: " ".join(text.replace("`", "").split()).rstrip(".")
        for name, text in entries
    }


def _read_path(text: str) -> Path | None:
    return Path(text) if text else None


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps descriptions unwrapped; shows `--name=VALUE` and switches as `--name`."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.type is _read_boolean:
            return ", ".join(action.option_strings)
        if action.option_strings and action.nargs is None:
            value = self._format_args(action, action.dest.upper())
            return f"{', '.join(action.option_strings)}={value}"
        return super()._format_action_invocation(action)


def make_parser(program: str, module: Any) -> Parser:
    """Returns the parser of a command.

    Args:
        program: the program's name in help and messages.
        module: a `Command`.
    """
    parser = Parser(program, module.__doc__ or "")
    module.add_flags(parser)
    return parser


def _take_config(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the flags of the config with their values, and the other arguments."""
    config, others = [], []
    rest = list(reversed(arguments))
    while rest:
        argument = rest.pop()
        match = re.match(r"--(no)?config(\.[^=]*)?(=|$)", argument)
        if match is None:
            others.append(argument)
            continue
        config.append(argument)
        # A boolean field may have no value.
        if match[3] != "=" and rest and not rest[-1].startswith("--"):
            config.append(rest.pop())
    return config, others


def read_names(text: str) -> tuple[str, ...]:
    """Splits a flag's names at commas; a name with a comma must be quoted.

    Raises:
        argparse.ArgumentTypeError: the quotes do not match.
    """
    try:
        return split_names(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def read_count(low: int, high: int) -> Any:
    """Returns a parser of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r}: allowed are whole numbers from {low} to {high}"
            )
        return int(text)

    return read


def start_log(verbosity: int) -> None:
    """Logs our own progress and all warnings to standard error.

    Args:
        verbosity: -1: no progress; 0: progress; 1: also messages for developers.
    """
    level = logging.WARNING - 10 * min(max(verbosity + 1, 0), 2)
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(_is_worth_showing)
    # Replaces the handler that absl installs when a library imports it.
    logging.basicConfig(level=level, handlers=[handler], force=True)
    warnings.formatwarning = lambda message, kind, *_: f"{kind.__name__}: {message}"
    logging.captureWarnings(True)


def _read_boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are true and false")
    return _BOOLEANS[text.lower()]


class _Formatter(logging.Formatter):
    """Escapes control characters, and line breaks except those of tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(show, super().format(record).split("\n")))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return show(super().formatMessage(record))


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Keeps our own progress and the libraries' warnings.

    jax repeats its warning about a damaged or full cache for each program; only the
    first is kept.
    """
    if "persistent compilation cache" in (text := record.getMessage()):
        is_first = not _cache_warnings
        _cache_warnings.append(text)
        return is_first
    ours = record.pathname.startswith(_PACKAGE)
    return ours or record.levelno >= logging.WARNING


_cache_warnings: list[str] = []
