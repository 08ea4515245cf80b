"""What the commands with absl's flags share: settings from them, and the log."""

import ast
import csv
import dataclasses
import logging as std_logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from absl import app, flags, logging

from sweet_jax.settings.fields import Settings, SettingsError, StudySettings, to_dict
from sweet_jax.settings.resolve import parse_config_string
from sweet_jax.system import process
from sweet_jax.system.files import show

_PACKAGE = str(Path(__file__).parents[1])


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


def run_command(work: Callable[[], int | None]) -> NoReturn:
    """Parses the flags and runs a command; see `process.run` for how it ends."""

    def guarded(_: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.INFO)
        handler = logging.get_absl_handler()
        handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.addFilter(_is_worth_showing)
        warnings.formatwarning = lambda message, kind, *_: f"{kind.__name__}: {message}"
        std_logging.captureWarnings(True)
        sys.exit(work())

    process.run(lambda: app.run(guarded, flags_parser=_parse_flags))


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; ml_collections' own errors are of many kinds."""
    try:
        argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        rest = flags.FLAGS(quote_names(argv))
    except SystemExit:  # Of --help, which has printed; to absl that is a failure.
        sys.exit(0)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        sys.exit(process.report(_find_own_error(e)))
    except SyntaxError as error:
        raise SettingsError(
            f"{error.filename}, line {error.lineno}: {error.msg}"
        ) from error
    if len(rest) > 1:
        raise SettingsError(
            f"unexpected argument {rest[1]!r}: fields go as --config.x=y"
        )
    return rest


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
        found.setdefault(name, []).extend(_split_names(value))
        if name not in places:
            places[name] = len(quoted)
            quoted.append(flag)
        quoted[places[name]] = f"{flag}={tuple(found[name])!r}"
    return quoted


def _split_names(text: str) -> tuple[str, ...]:
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


def _find_own_error(error: BaseException) -> BaseException:
    """Returns what a config file of ours complained of; else the error itself.

    ml_collections raises it again, twice, with its traceback in the message: the first
    one is at the end of the chain.
    """
    found, link = error, error
    while (link := link.__cause__ or link.__context__) is not None:
        found = link if isinstance(link, SettingsError) else found
    return found


class _Formatter(std_logging.Formatter):
    """A record whose names cannot control the terminal; only tracebacks have lines."""

    def format(self, record: std_logging.LogRecord) -> str:
        return "\n".join(map(show, super().format(record).split("\n")))

    def formatMessage(self, record: std_logging.LogRecord) -> str:  # noqa: N802
        return show(super().formatMessage(record))


def _is_worth_showing(record: std_logging.LogRecord) -> bool:
    """Keeps our own progress; of the libraries, warnings only.

    Of a damaged or full cache jax says so for each program; once is enough.
    """
    if "persistent compilation cache" in (text := record.getMessage()):
        is_first = not _cache_warnings
        _cache_warnings.append(text)
        return is_first
    ours = record.pathname.startswith(_PACKAGE)
    return ours or record.levelno >= std_logging.WARNING


_cache_warnings: list[str] = []
