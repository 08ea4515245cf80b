"""Reads small files that may be hostile, and writes files atomically.

A folder may come from anyone, so the readers limit the size, parse strict JSON and
check its schema. Written files have the permissions that the umask allows.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

T = TypeVar("T")

# Far above the size of our own files, and still read within a second.
_MOST_BYTES = 64 << 20
COPY_AGAIN = "copy it again"
_NONE = object()  # Stands for a missing field.


class FileError(ValueError):
    """A file cannot be used: one line with its path, what is wrong and what to do."""


def read_bytes(
    path: Path, remedy: str = COPY_AGAIN, most_bytes: int = _MOST_BYTES
) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: the file.
        remedy: what the user should do about a bad file, for the error message.
        most_bytes: a larger file is refused before it is read.

    Raises:
        FileError: it is missing, not a regular file, too large, or cannot be read.
    """
    check_file(path, remedy, most_bytes)
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"{path} cannot be read ({reason}): {remedy}") from error


def check_file(
    path: Path, remedy: str = COPY_AGAIN, most_bytes: int | None = None
) -> None:
    """Checks that a path is a regular file; a pipe or a device may never end.

    Args:
        path: the file.
        remedy: what the user should do about a bad file, for the error message.
        most_bytes: the largest size allowed; None: no limit.

    Raises:
        FileError: it is missing, not a regular file, or too large.
    """
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "is missing"
            raise FileError(f"{path} {what}: {remedy}")
        size = path.stat().st_size
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"{path} cannot be read ({reason}): {remedy}") from error
    if most_bytes is not None and size > most_bytes:
        raise FileError(
            f"{path} has {size} bytes, at most {most_bytes} are read: {remedy}"
        )


@contextlib.contextmanager
def explain_damage(path: Path, remedy: str = COPY_AGAIN) -> Iterator[None]:
    """Reports an exception of a library over a damaged file as one line.

    zipfile and numpy raise a dozen types over damage. The types that bugs of ours raise
    are not among them, and pass.

    Args:
        path: the file.
        remedy: what the person can do, for the message.

    Raises:
        FileError: the body raised such an error, or the file cannot be read.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"{path} cannot be read ({reason}): {remedy}") from error
    except (AssertionError, AttributeError, NameError, TypeError):
        raise
    except Exception as error:
        reason = show(str(error))[:200] or type(error).__name__
        raise FileError(f"{path} is damaged ({reason}): {remedy}") from error


def parse_json(data: bytes, path: Path, remedy: str = COPY_AGAIN) -> Any:
    """Returns the value of strict JSON in UTF-8: no NaN, no infinity.

    Raises:
        FileError: it is not strict JSON, or too deep or too long for Python to read.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
        )
    except RecursionError as error:
        raise FileError(f"{path} is nested too deeply for JSON: {remedy}") from error
    except ValueError as error:  # Not UTF-8, not JSON, or a number of 5,000 digits.
        raise FileError(f"{path} is damaged ({error}): {remedy}") from error


def read_json(path: Path, remedy: str = COPY_AGAIN) -> Any:
    """Reads strict JSON.

    Raises:
        FileError: see `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path, remedy), path, remedy)


def read_object(path: Path, remedy: str = COPY_AGAIN) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileError: see `read_json`; or the value is not an object.
    """
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise FileError(f"{path} is not a JSON object: {remedy}")
    return content


def read_as(
    path: Path, kind: type[T], schema: int | None = None, remedy: str = COPY_AGAIN
) -> T:
    """Reads a JSON file as a dataclass or pydantic model, strictly.

    Values are converted only where JSON lacks a type: lists become tuples, and whole
    numbers become floats. Fields that `kind` does not have are ignored.

    Args:
        path: the file.
        kind: the class to read; its annotations are the schema, with limits in
            `Annotated`.
        schema: the newest version that this package reads; None: no version is stated.
        remedy: what the user should do about a bad file, for the error message.

    Raises:
        FileError: the file cannot be read, has a newer schema, or a field is missing,
            of another type or outside of its limits; the first such field is named.
    """
    data = read_bytes(path, remedy)
    content = parse_json(data, path, remedy)
    if not isinstance(content, dict):
        raise FileError(f"{path} is not a JSON object: {remedy}")
    if schema is not None:
        check_schema(content, schema, path, remedy)
    return _validate(data, kind, path, remedy)


def check_as(content: Any, kind: type[T], path: Path, remedy: str = COPY_AGAIN) -> T:
    """Checks a value from a JSON file against a schema; see `read_as`.

    Raises:
        FileError: a field is missing, of another type or outside of its limits.
    """
    return _validate(json.dumps(content).encode(), kind, path, remedy)


def _validate(data: bytes, kind: type[T], path: Path, remedy: str) -> T:
    import pydantic  # Takes a tenth of a second, and few commands need it.

    try:
        return pydantic.TypeAdapter(kind).validate_json(data, strict=True)
    except pydantic.ValidationError as error:
        raise FileError(f"{path} is damaged ({_describe(error)}): {remedy}") from error


def check_schema(
    content: dict[str, Any], newest: int, path: Path, remedy: str = COPY_AGAIN
) -> None:
    """Checks the schema version that a file states.

    Raises:
        FileError: the version is missing, or newer than `newest`.
    """
    schema = content.get("schema")
    if type(schema) is not int or schema < 1:
        raise FileError(f"{path} is damaged (it has no schema): {remedy}")
    if schema > newest:
        raise FileError(
            f"{path} has schema {schema}, this version reads up to {newest}: update"
            " sweet_jax"
        )


def list_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns `name was 1, now 2` for each field that differs.

    Args:
        old: the fields of a file.
        new: the requested fields. A field missing on one side is shown as `(none)`.
    """
    lacking = dict.fromkeys(old.keys() | new.keys(), _NONE)
    before, now = lacking | dict(old), lacking | dict(new)

    def tell(value: Any) -> str:
        return "(none)" if value is _NONE else repr(value)

    return [
        f"{name} was {tell(before[name])}, now {tell(now[name])}"
        for name in sorted(lacking)
        if before[name] != now[name]
    ]


def hash_file(path: Path) -> str:
    """Returns the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def write_whole(path: Path, tag: str = "") -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` at the end.

    Its name is `.NAME.{tag}PID.tmp`.

    If the body or the disk fails, `path` is unchanged and the temporary file is
    removed. An OSError without a file name gets one: "No space left on device" alone
    does not tell which disk is full.
    """
    temporary = path.with_name(f".{path.name}.{tag}{os.getpid()}.tmp")
    try:
        with _name_path(temporary, path):
            # If it is a symbolic link, its target must not be overwritten.
            temporary.unlink(missing_ok=True)
            yield temporary
            allow_reading(temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, and renames it to `path` at the end.

    If the body or the disk fails, `path` is unchanged and the temporary folder is
    removed. Errors name the file as in `write_whole`.
    """
    path = path.resolve()
    temporary, old = (path.with_name(f".{path.name}.{end}") for end in ("tmp", "old"))
    try:
        with _name_path(temporary, path):
            for leftover in (temporary, old):  # A killed process may leave them.
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                path.rename(old)
            temporary.rename(path)
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _name_path(temporary: Path, path: Path) -> Iterator[None]:
    """Makes system errors name `path` instead of the temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            name = str(error.filename or temporary)
            error.filename = name.replace(str(temporary), str(path))
        raise
    # safetensors and tokenizers raise their own exceptions for system errors.
    except Exception as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with write_whole(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; raises ValueError for NaN and infinity."""
    write_bytes(path, format_json(value).encode())


def format_json(value: Any) -> str:
    """Returns the text that `write_json` writes."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # A lone surrogate, such as a non-UTF-8 byte of a path, cannot be encoded in UTF-8.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def allow_reading(path: Path) -> None:
    """Sets a file's default mode: some libraries make files readable by the owner only.

    The default mode is that of a new file under the umask.
    """
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def take_lock(path: Path) -> IO[str] | None:
    """Locks a file (created if missing); returns None if another process holds it.

    Closing the returned file, or the end of the process, releases the lock.
    """
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def show(text: str) -> str:
    r"""Makes a text safe for a terminal: control characters are escaped as `\x1b`.

    Names in files may contain any character, and terminals obey invisible ones: they
    change colours, the title, the cursor's position or the writing direction.
    """
    return "".join(map(_show_character, text))


def show_names(names: Iterable[str], most: int = 4) -> str:
    """Returns the first few names from a file, truncated, and how many more."""
    every = list(names)
    shown = ", ".join(show(name[:80]) for name in every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown


def show_value(value: object) -> str:
    """Returns the truncated `repr` of a value from a file, safe for a terminal."""
    text = show(repr(value))
    return text if len(text) <= 100 else f"{text[:100]}..."


def _show_character(character: str) -> str:
    # Cc: controls; Cf: invisible, such as writing direction; Cs: lone surrogates; Zl,
    # Zp: line breaks. The two joiners are part of words and emoji.
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if not hidden or character in "\u200c\u200d":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _describe(error: Any) -> str:
    """Returns pydantic's first error, truncated."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{show(place[:80])}: {first['msg'][:120]}" if place else first["msg"][:120]
