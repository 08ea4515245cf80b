"""What the command lines share: settings from flags, one line for a wrong input."""

import dataclasses
import logging as std_logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from sweet_jax.resolve import parse_config_string
from sweet_jax.settings import Settings, SettingsError, StudySettings, to_dict

INPUT_ERROR_STATUS = 2
STOPPED_STATUS = 75  # EX_TEMPFAIL: the same command goes on.
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
    """Parses the flags and runs a command; wrong inputs are one line and status 2."""

    def guarded(_: list[str]) -> NoReturn:
        # PyTorch is not needed here; without it transformers would say so each time.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.INFO)
        handler = logging.get_absl_handler()
        handler.setFormatter(
            std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
        )
        handler.addFilter(_is_worth_showing)
        try:
            status = work()
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) and not _is_raised_here(error):
                raise  # A library's complaint about our code is a bug of ours.
            _fail(error)
        sys.exit(status)

    app.run(guarded, flags_parser=_parse_flags)


def run_stream(work: Callable[[], None]) -> int:
    """Runs what reads and writes as it goes; returns the exit status.

    SIGTERM and ctrl-C stop it in one way, KeyboardInterrupt, whose message is shown;
    who closes the pipe that it writes to has enough (`| head`).
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work()
        return 0
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped before the first row", file=sys.stderr)
        return STOPPED_STATUS
    except BrokenPipeError:
        # What is buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; ml_collections' own errors are of many kinds."""
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        _fail(_find_own_error(e))
    except SyntaxError as error:
        _fail(ValueError(f"{error.filename}, line {error.lineno}: {error.msg}"))
    if len(rest) > 1:
        _fail(ValueError(f"unexpected argument {rest[1]!r}: fields go as --config.x=y"))
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


def _fail(error: BaseException) -> NoReturn:
    """Prints the error as one line and exits with status 2."""
    text = (
        str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    )
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or ''}: {error.strerror}".lstrip(": ")
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(INPUT_ERROR_STATUS)


def _is_raised_here(error: BaseException) -> bool:
    """Whether our own code raised the error, not a library it called."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


def _is_worth_showing(record: std_logging.LogRecord) -> bool:
    """Keeps our own progress; of the libraries, warnings only."""
    ours = record.pathname.startswith(_PACKAGE)
    return ours or record.levelno >= std_logging.WARNING
