"""The standard streams of a command, whatever its caller has done to them."""

import codecs
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from io import TextIOWrapper

# What an error of standard output has as its file.
STDOUT = "standard output"
_ESCAPE = "sweet_jax.escape"


class _Output(TextIOWrapper):
    """Standard output, whose errors say that they are its own."""

    def write(self, text: str, /) -> int:
        with _named_output():
            return super().write(text)

    def flush(self) -> None:
        with _named_output():
            super().flush()


@contextlib.contextmanager
def _named_output() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = STDOUT
        raise


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Writes what the terminal's alphabet lacks as `\u00e9`, which JSON reads, too."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    units = memoryview(text.encode("utf-16", "surrogatepass")).cast("H")[1:]
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


codecs.register_error(_ESCAPE, _escape)


@functools.cache
def open_streams() -> None:
    """Makes the standard streams usable, whatever the caller has closed.

    Until then the next file that is opened would take the number of a closed stream. In
    its place comes one that cannot be used in the stream's direction: reading from a
    closed input, or printing to a closed output, is an error like any other.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:  # Only if a lower one is open again.
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    out = sys.stdout
    if out is None:
        sys.stdout = _Output(
            open(1, "wb", closefd=False),  # noqa: SIM115
            encoding="utf-8",
            errors=_ESCAPE,
        )
    elif isinstance(out, TextIOWrapper):  # A test may have put its own there.
        sys.stdout = _Output(
            out.buffer,
            encoding=out.encoding,
            errors=_ESCAPE,
            line_buffering=out.line_buffering,
            write_through=out.write_through,
        )
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(errors=_ESCAPE)
