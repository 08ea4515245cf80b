"""Config files: finding one, its overrides on the command line, its settings."""

import ast
import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from sweet_jax.settings.fields import Settings, SettingsError, StudySettings, to_dict
from sweet_jax.settings.resolve import parse_config_string
from sweet_jax.system.files import show
from sweet_jax.system.registry import describe_unknown

_PACKAGED = Path(__file__).parents[1] / "configs"


def make_config(text: str = "", **fields: Any) -> Any:
    """Returns the ConfigDict of a config file.

    Args:
        text: what follows the colon in `--config=file.py:task=sst2,seed=1`.
        **fields: what the file changes, as section dicts or top-level values; the
            text wins over them. With `study`, the config is that of a study.

    Raises:
        SettingsError: the text is malformed.
    """
    from ml_collections import ConfigDict

    config = ConfigDict(to_dict(Settings()))
    if "study" in fields:
        config.study = dataclasses.asdict(StudySettings())
    config.update(fields)
    config.update_from_flattened_dict(parse_config_string(text))
    return config.lock()


def list_configs() -> list[str]:
    """Returns the names of the config files that come with the package."""
    return sorted(path.stem for path in _PACKAGED.glob("[a-z]*.py"))


def find_config(text: str) -> str:
    """Returns the value of `--config` with the path of its file.

    Args:
        text: a path that ends in .py, or a name of `list_configs`; then, after a
            colon, what is handed to the file.

    Raises:
        SettingsError: there is no such file or name.
    """
    # A Windows path has a colon of its own.
    match = re.fullmatch(r"(?s)(.:\\)?(.*?)(:.*)?", text)
    assert match is not None
    drive, name, rest = (part or "" for part in match.groups())
    name = drive + name
    if not (name.endswith(".py") or "/" in name or "\\" in name):
        if name not in (known := list_configs()):
            raise SettingsError(
                f"{describe_unknown('--config', name, known)}, or the path of a"
                " file of yours that ends in .py"
            )
        name = str(_PACKAGED / f"{name}.py")
    elif not Path(name).is_file():
        raise SettingsError(
            f"--config={show(name)}: there is no such file; give a path, or one of"
            f" {', '.join(list_configs())}"
        )
    return name + rest


def read_config(arguments: Sequence[str]) -> Any:
    """Returns the config of a command line.

    Args:
        arguments: its flags `--config=FILE` and `--config.section.field=value`, and no
            others.

    Raises:
        SettingsError: a file, a field or a value is wrong.
    """
    from absl import flags
    from ml_collections import config_flags

    arguments = [*quote_names(_name_file(arguments))]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=["", *arguments]
    )
    # ml_collections' own errors are of many kinds.
    try:
        rest = values(["", *arguments])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        raise SettingsError(_describe(_find_own_error(e))) from e
    except SyntaxError as error:
        raise SettingsError(
            f"{error.filename}, line {error.lineno}: {error.msg}"
        ) from error
    if len(rest) > 1:
        raise SettingsError(
            f"unexpected argument {rest[1]!r}: fields go as --config.x=y"
        )
    if holder.value is None:
        raise SettingsError(
            "--config is missing: give one of"
            f" {', '.join(list_configs())}, as in --config=sweet, or the path of a"
            " config file"
        )
    return holder.value


def _name_file(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, `--config` first and with the path of its file."""
    files: list[str] = []
    found = []
    rest = iter(arguments)
    for argument in rest:
        match = re.fullmatch(r"(?s)--?config(=(.*))?", argument)
        if match is None:
            found.append(argument)
            continue
        value = match[2] if match[1] else next(rest, None)
        if value is None:
            raise SettingsError("--config has no value: say --config=sweet")
        files.append(f"--config={find_config(value)}")
    return [*files[-1:], *found]


def _describe(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _find_own_error(error: BaseException) -> BaseException:
    """Returns what a config file of ours complained of; else the error itself.

    ml_collections raises it again, twice, with its traceback in the message: the first
    one is at the end of the chain.
    """
    found, link = error, error
    while (link := link.__cause__ or link.__context__) is not None:
        found = link if isinstance(link, SettingsError) else found
    return found


def quote_names(argv: Sequence[str]) -> list[str]:
    """Returns arguments in which lists of names are Python tuples.

    ml_collections reads `0,1` as a list, but `title,body` as one name. A name with a
    comma is given in quotes: `"'last, first',title"`. A flag that comes again adds to
    the list.
    """
    fields = _list_name_fields()
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
            quoted.append(argument)  # Its value is missing, as absl will say.
            break
        found.setdefault(name, []).extend(split_names(value))
        if name not in places:
            places[name] = len(quoted)
            quoted.append(flag)
        quoted[places[name]] = f"{flag}={tuple(found[name])!r}"
    return quoted


def split_names(text: str) -> tuple[str, ...]:
    """Splits a list of names, written as a Python value or as they are."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if isinstance(value, str):
        return (value,)
    if isinstance(value, tuple | list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    # Numbers are names, too. Whoever knows the other form may forget its quotes.
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    quote = "'" if "'" in text and '"' not in text else '"'
    try:
        row = next(csv.reader([text], quotechar=quote, skipinitialspace=True), [])
    except csv.Error as error:
        raise SettingsError(f"{text!r} is no list of names: {error}") from error
    return tuple(name.strip() for name in row if name.strip())


def _list_name_fields() -> set[str]:
    """Returns the dotted fields of a config that hold lists of names."""
    sections: dict[str, Any] = {"": Settings, "study.": StudySettings}
    for name, kind in get_type_hints(Settings).items():
        if dataclasses.is_dataclass(kind):
            sections[f"{name}."] = kind
    return {
        f"{prefix}{name}"
        for prefix, section in sections.items()
        for name, kind in get_type_hints(section).items()
        if kind == tuple[str, ...]
    }
