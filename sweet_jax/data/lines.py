"""Reads lines of a file or of standard input as they arrive."""

import codecs
import io
import select
from collections import deque

# Characters of a row, far beyond any text: limits the memory for an open quote or a
# file without line ends.
LONGEST_ROW = 1 << 24
# A longer line can only be a row that is too long, so its end is not read.
_MOST_LINE_BYTES = 4 * LONGEST_ROW
_BLOCK_BYTES = 1 << 16
# First bytes of files that are not text -> what to do with them.
_UNPACK = "is compressed by {}: unpack it first"
_SAVE_AS_TABLE = "is {}: save its rows as .csv or .jsonl"
_SIGNATURES = (
    (b"\x1f\x8b", _UNPACK.format("gzip")),
    (b"BZh", _UNPACK.format("bzip2")),
    (b"\xfd7zXZ\x00", _UNPACK.format("xz")),
    (b"\x28\xb5\x2f\xfd", _UNPACK.format("zstd")),
    (b"\x04\x22\x4d\x18", _UNPACK.format("lz4")),
    (b"7z\xbc\xaf\x27\x1c", _UNPACK.format("7-Zip")),
    (b"PK\x03\x04", "is a zip archive or a sheet (.xlsx): save its rows as .csv"),
    (b"\xd0\xcf\x11\xe0", _SAVE_AS_TABLE.format("an Office document")),
    (b"PAR1", _SAVE_AS_TABLE.format("a Parquet file")),
    (b"ARROW1", _SAVE_AS_TABLE.format("an Arrow file")),
    (b"SQLite format 3", _SAVE_AS_TABLE.format("a SQLite database")),
    (b"%PDF-", _SAVE_AS_TABLE.format("a PDF document")),
    (b"\x93NUMPY", _SAVE_AS_TABLE.format("a NumPy array")),
    (
        b"version https://git-lfs.",
        "is a Git LFS pointer, not the data: run git lfs pull",
    ),
)
_SAVE_AS_UTF8 = "is in {}: save it as UTF-8"
_BYTE_ORDER_MARKS = (
    # UTF-32 first: its mark begins with the mark of UTF-16.
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class RowsError(ValueError):
    """A file or stream cannot be read as rows; the message is one line."""


class LineReader:
    r"""Iterates over lines with their ends; tells whether one is already available.

    Lines end at `\n`, `\r\n` or `\r`, as in Python's files with `newline=""`; other
    line separators (U+2028) stay in the text. A byte order mark is left out. Bytes that
    are not UTF-8 become lone surrogates, so that the error belongs to their row.

    Attributes:
        num_bytes: bytes read so far, up to one block ahead of the lines.
    """

    def __init__(self, file: io.FileIO, where: str = "the input") -> None:
        """Makes the reader; nothing is read yet.

        Args:
            file: unbuffered, because `select` does not see buffered data.
            where: its name in messages.
        """
        self._file = file
        self._where = where
        self._lines: deque[str] = deque()
        self._rest = bytearray()  # The beginning of a line whose end is not read yet.
        self._is_start = True
        self._num_lines = 0  # Lines read so far.
        self.num_bytes = 0

    def __iter__(self) -> "LineReader":
        """Returns itself."""
        return self

    def __next__(self) -> str:
        """Returns the next line, and waits for it if necessary.

        Raises:
            RowsError: the input is compressed, binary or in another encoding, or a line
                does not end.
        """
        while not self._lines:
            block = self._file.read(_BLOCK_BYTES)
            if block is None:  # A non-blocking input has no data yet.
                select.select([self._file], [], [])
            elif block:
                self.num_bytes += len(block)
                self._add(block)
            elif self._rest:
                self._push([bytes(self._rest)])
                self._rest.clear()
            else:
                raise StopIteration
        return self._lines.popleft()

    def is_ready(self) -> bool:
        """Whether a part of the next line is available, or the input has ended."""
        return bool(self._lines) or bool(select.select([self._file], [], [], 0)[0])

    def _add(self, block: bytes) -> None:
        if self._rest.endswith(b"\r") and not block.startswith(b"\n"):
            self._push([bytes(self._rest)])
            self._rest.clear()
        lines = block.splitlines(keepends=True)
        # A \r at the end of a block may be the first half of \r\n.
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
            self._push(lines)
        self._rest += rest
        if self._is_start and len(self._rest) >= _BLOCK_BYTES:
            self._check_start(bytes(self._rest[:_BLOCK_BYTES]))
        if len(self._rest) > _MOST_LINE_BYTES:
            raise RowsError(
                f"{self._where} line {self._num_lines + 1} has more than"
                f" {_MOST_LINE_BYTES:,} bytes and no end: is it a text file?"
            )

    def _push(self, lines: list[bytes]) -> None:
        if self._is_start:
            self._check_start(lines[0])
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
            self._is_start = False
        self._num_lines += len(lines)
        self._lines.extend(line.decode("utf-8", "surrogateescape") for line in lines)

    def _check_start(self, start: bytes) -> None:
        """Raises RowsError if the first line, or its beginning, is not UTF-8 text."""
        problem = _find_other_kind(start)
        if problem:
            raise RowsError(f"{self._where} {problem}")


def _find_other_kind(start: bytes) -> str:
    """Returns the problem of a file that begins so, to follow its name; or ""."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return _SAVE_AS_UTF8.format(encoding)
    for signature, problem in _SIGNATURES:
        if start.startswith(signature):
            return problem
    # UTF-16 without a mark has zeros in every other byte of plain text.
    even, odd = start[:64:2], start[1:64:2]
    if len(start) >= 4 and any(even + odd):
        if (not any(odd) and all(even)) or (not any(even) and all(odd)):
            return _SAVE_AS_UTF8.format("UTF-16")
    elif len(start) >= 4:
        return "holds zero bytes only: it was damaged, copy it again"
    return ""
