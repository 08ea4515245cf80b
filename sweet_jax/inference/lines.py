"""Lines of a file or of standard input, taken as they arrive."""

import io
import select
from collections import deque

_BLOCK_BYTES = 1 << 16


class LineReader:
    r"""Iterates over lines, without their `\n`; says whether one is there already.

    Lines end at `\n` alone, as in jsonl; what else takes a text apart (`\r`, U+2028)
    stays in it. A byte order mark is left out. Bytes that are not UTF-8 become lone
    surrogates, so that they show in their own row.

    Attributes:
        num_bytes: read so far, which is up to a block ahead of the lines.
    """

    def __init__(self, file: io.FileIO) -> None:
        """Reads nothing yet.

        Args:
            file: unbuffered: what a buffer holds could not be asked for.
        """
        self._file = file
        self._lines: deque[str] = deque()
        self._rest = bytearray()  # of a line whose end is not read yet
        self._is_start = True
        self.num_bytes = 0

    def __iter__(self) -> "LineReader":
        """Returns itself."""
        return self

    def __next__(self) -> str:
        """Returns the next line; waits for it."""
        while not self._lines:
            block = self._file.read(_BLOCK_BYTES)
            if block is None:  # Of an input that is set not to block: not yet.
                select.select([self._file], [], [])
            elif block:
                self._add(block)
            elif self._rest:
                self._split(bytes(self._rest))
                self._rest.clear()
            else:
                raise StopIteration
        return self._lines.popleft()

    def is_ready(self) -> bool:
        """Whether the next line, or a part of it, is there, or the input has ended."""
        return bool(self._lines) or bool(select.select([self._file], [], [], 0)[0])

    def _add(self, block: bytes) -> None:
        end = block.rfind(b"\n") + 1
        if end:
            self._split(bytes(self._rest) + block[: end - 1])
            self._rest.clear()
        self._rest += block[end:]
        self.num_bytes += len(block)

    def _split(self, content: bytes) -> None:
        text = content.decode("utf-8", "surrogateescape")
        if self._is_start:
            text, self._is_start = text.removeprefix("\ufeff"), False
        self._lines.extend(text.split("\n"))
