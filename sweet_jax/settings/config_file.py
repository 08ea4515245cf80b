"""Config files: finding one, running it, and applying command line overrides."""

import ast
import csv
import dataclasses
import importlib.util
import re
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from sweet_jax.settings.fields import (
    OTHER_SECTIONS,
    Settings,
    list_fields,
    to_dict,
)
from sweet_jax.settings.from_config import make_unknown_key_error, parse_config_string
from sweet_jax.settings.papa import PAPA_SECTIONS
from sweet_jax.settings.rules import SettingsError, strip_rules
from sweet_jax.system.errors import describe_error
from sweet_jax.system.files import show
from sweet_jax.system.names import describe_unknown

_PACKAGED = Path(__file__).parents[1] / "configs"
# The module name that a config file runs under.
_MODULE = "sweet_jax_config_file"


def make_config(text: str = "", **fields: Any) -> Any:
    """Returns the ConfigDict of a config file.

    Args:
        text: what follows the colon in `--config=file.py:task=sst2,seed=1`; it
            overrides `fields`.
        **fields: the file's changes, as section dicts or top-level values. With
            `study` or `papa`, this is the config of a study or of that analysis.

    Raises:
        SettingsError: the text is malformed.
    """
    from ml_collections import ConfigDict

    config = ConfigDict(to_dict(Settings()))
    if "papa" in fields:  # It reads no other sections.
        for name in set(config.keys()) - {*PAPA_SECTIONS}:
            del config[name]
    for section in OTHER_SECTIONS.keys() & fields.keys():
        config[section] = dataclasses.asdict(OTHER_SECTIONS[section]())
    config.update(fields)
    config.update_from_flattened_dict(parse_config_string(text))
    return config.lock()


def list_configs() -> list[str]:
    """Returns the names of the config files that come with the package."""
    return sorted(path.stem for path in _PACKAGED.glob("[a-z]*.py"))


def find_config(text: str) -> str:
    """Returns the value of `--config` with its name replaced by a path.

    Args:
        text: a path that ends in .py, or a name of `list_configs`; then optionally a
            colon and the argument of the file's `get_config`.

    Raises:
        SettingsError: there is no such file or name.
    """
    name, colon, given = _split(text)
    if not (name.endswith(".py") or "/" in name or "\\" in name):
        if name not in (known := list_configs()):
            raise SettingsError(
                f"{describe_unknown('--config', name, known)}, or the path of your"
                " own file, ending in .py"
            )
        name = str(_PACKAGED / f"{name}.py")
    elif not Path(name).is_file():
        raise SettingsError(
            f"--config={show(name)}: there is no such file; give a path, or one of"
            f" {', '.join(list_configs())}"
        )
    return name + colon + given


def _split(text: str) -> tuple[str, str, str]:
    """Splits the value of `--config` at its colon."""
    # A Windows path contains a colon, too.
    match = re.fullmatch(r"(?s)((?:.:\\)?.*?)(?:(:)(.*))?", text)
    assert match is not None
    return match[1], match[2] or "", match[3] or ""


def load_config(text: str) -> Any:
    """Returns the ConfigDict of a config.

    Args:
        text: the value of `--config`; see `find_config`.

    Raises:
        SettingsError: there is no such config, or its file fails; the message has the
            line of the file.
    """
    from ml_collections import ConfigDict

    name, colon, given = _split(find_config(text))
    path = Path(name)
    try:
        get_config = _run_file(path).get_config
        config = get_config(given) if colon else get_config()
        if isinstance(config, dict):
            config = ConfigDict(config)
        if not isinstance(config, ConfigDict):
            raise TypeError(f"get_config() returned {type(config).__name__}")
    # A config file is a program: it may raise anything.
    except (Exception, SystemExit) as error:
        raise SettingsError(_describe(error, path)) from error
    return config.lock()


def read_config(arguments: Sequence[str]) -> Any:
    """Returns the config of a command line.

    Args:
        arguments: only flags `--config=FILE` and `--config.section.field=value`.

    Raises:
        SettingsError: a file, a field or a value is wrong.
    """
    from absl import flags
    from ml_collections import config_flags

    name, arguments = _take_name(arguments)
    if name is None:
        raise SettingsError(
            "--config is missing: give one of"
            f" {', '.join(list_configs())}, as in --config=sweet, or the path of a"
            " config file"
        )
    config = load_config(name)
    arguments = quote_names(arguments)
    _check_fields(arguments, config)
    values = flags.FlagValues()
    # ml_collections raises many kinds of exceptions.
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=arguments
        )
        rest = values(["", *arguments])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise SettingsError(
            f"unexpected argument {rest[1]!r}: set fields with --config.x=y"
        )
    return holder.value


def _take_name(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Splits the last `--config=NAME` from the other arguments."""
    name, others = None, []
    rest = iter(arguments)
    for argument in rest:
        match = re.fullmatch(r"(?s)--?config(=(.*))?", argument)
        if match is None:
            others.append(argument)
            continue
        name = match[2] if match[1] else next(rest, None)
        if name is None:
            raise SettingsError("--config has no value: give one, as --config=sweet")
    return name, others


def _run_file(path: Path) -> ModuleType:
    # Not by import: a user's file may have the name of a package.
    loader = SourceFileLoader(_MODULE, str(path))
    spec = importlib.util.spec_from_loader(_MODULE, loader)
    assert spec is not None
    module = sys.modules[_MODULE] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _describe(error: BaseException, path: Path) -> str:
    """Returns one line with the error of a config file and its line number."""
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}: {error.msg}"
    if isinstance(error, OSError) and error.filename == str(path):
        return f"{path}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    place = f"{path}, line {lines[-1]}" if lines else f"{path}"
    return f"{place}: {describe_error(error)}"


def _check_fields(arguments: Sequence[str], config: Any) -> None:
    """Raises SettingsError if a flag sets a field that the config does not have."""
    known = [name for name in list_fields() if name.split(".")[0] in config]
    for argument in arguments:
        match = re.match(r"--?(?:no)?config\.([\w.]*)", argument)
        if match is None or match[1] in known or match[1] in config:
            continue
        section = match[1].partition(".")[0]
        if section in OTHER_SECTIONS and section not in config:
            raise SettingsError(
                f"--config.{match[1]} needs a config with the section {section}: use"
                f" --config={section}"
            )
        raise make_unknown_key_error(match[1], known)


def quote_names(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with lists of names written as Python tuples.

    ml_collections reads `0,1` as a list, but `title,body` as one name. A name with a
    comma needs quotes: `"'last, first',title"`. A repeated flag adds to the list.
    """
    fields = {
        n for n, kind in list_fields().items() if strip_rules(kind) == tuple[str, ...]
    }
    found: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    quoted: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument == "--":
            return [*quoted, argument, *rest]
        flag, has_value, value = argument.partition("=")
        name = flag.lstrip("-").removeprefix("config.")
        if name not in fields or not re.match(r"--?config\.", flag):
            quoted.append(argument)
            continue
        if not has_value and (value := next(rest, None)) is None:
            quoted.append(argument)  # absl reports the missing value.
            break
        found.setdefault(name, []).extend(split_names(value))
        if name not in places:
            places[name] = len(quoted)
            quoted.append(flag)
        quoted[places[name]] = f"{flag}={tuple(found[name])!r}"
    return quoted


def split_names(text: str) -> tuple[str, ...]:
    """Splits a list of names, written as a Python value or separated by commas."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if isinstance(value, str):
        return (value,)
    if isinstance(value, tuple | list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    # Numbers are names, too, and a Python list may lack the quotes: (0,1) or [a,b].
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    quote = "'" if "'" in text and '"' not in text else '"'
    try:
        row = next(csv.reader([text], quotechar=quote, skipinitialspace=True), [])
    except csv.Error as error:
        raise SettingsError(f"{text!r} is not a list of names: {error}") from error
    return tuple(name.strip() for name in row if name.strip())
