"""What the commands with absl's flags share: settings from them, and the log."""

import dataclasses
import logging as std_logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from sweet_jax import process
from sweet_jax.files import show
from sweet_jax.resolve import parse_config_string
from sweet_jax.settings import Settings, SettingsError, StudySettings, to_dict

_PACKAGE = str(Path(__file__).parent)


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
        # PyTorch is not needed here; without it transformers would say so each time.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.INFO)
        handler = logging.get_absl_handler()
        handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.addFilter(_is_worth_showing)
        sys.exit(work())

    process.run(lambda: app.run(guarded, flags_parser=_parse_flags))


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; ml_collections' own errors are of many kinds."""
    try:
        rest = flags.FLAGS(argv)
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
    if flags.FLAGS["help"].value or flags.FLAGS["helpfull"].value:
        app.usage(shorthelp=not flags.FLAGS["helpfull"].value, writeto_stdout=True)
        sys.exit(0)
    return rest


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
    """Keeps our own progress; of the libraries (orbax says much), warnings only."""
    ours = record.pathname.startswith(_PACKAGE)
    return ours or record.levelno >= std_logging.WARNING
