"""The standard streams of a command, whatever its caller has done to them."""

import codecs
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from io import TextIOWrapper

# The `filename` of errors on standard output.
STDOUT = "standard output"
_ESCAPE = "sweet_jax.escape"


class _Output(TextIOWrapper):
    """Standard output whose errors have STDOUT as their `filename`."""

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
    r"""Escapes characters that the encoding lacks as `\u00e9`, which is valid JSON."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    units = memoryview(text.encode("utf-16", "surrogatepass")).cast("H")[1:]
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


codecs.register_error(_ESCAPE, _escape)


@functools.cache
def open_streams() -> None:
    """Makes the standard streams usable, whatever the caller has closed.

    Otherwise the next opened file would get the descriptor of a closed stream. A closed
    stream is replaced by /dev/null, opened in the wrong direction: reading from it or
    printing to it is an ordinary error.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:  # A lower descriptor was free.
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
