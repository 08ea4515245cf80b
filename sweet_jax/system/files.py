"""Small files, read without trust and written whole.

A folder may come from anyone, so a reader takes nothing for granted: a file has a size
limit, its JSON is strict, its content has a schema. What is written is there as a whole
or not at all, and may be read by whoever the umask allows.
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

# Far above every file of ours, and read in a second.
_MOST_BYTES = 64 << 20
COPY_AGAIN = "copy it again"
_NONE = object()  # A field that one side lacks.


class FileError(ValueError):
    """A file cannot be used: one line with its path, what is wrong and what to do."""


def read_bytes(
    path: Path, remedy: str = COPY_AGAIN, most_bytes: int = _MOST_BYTES
) -> bytes:
    """Returns the content of a regular file.

    Args:
        path: the file.
        remedy: what the person can do, for the message.
        most_bytes: a larger file is refused before it is read.

    Raises:
        FileError: it is missing, no regular file, too large, or cannot be read.
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
        remedy: what the person can do, for the message.
        most_bytes: its largest size; None: any.

    Raises:
        FileError: it is missing, no regular file or too large.
    """
    try:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "is missing"
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
    """Turns what a library raises over a damaged file into a line.

    zipfile and numpy raise a dozen kinds over damage. The kinds that a bug of ours
    raises are none of them, and pass.

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
        FileError: it is no such thing, or deeper or longer than Python reads.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
        )
    except RecursionError as error:
        raise FileError(f"{path} is nested too deeply for JSON: {remedy}") from error
    except ValueError as error:  # Not UTF-8, no JSON, 5,000 digits.
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
        FileError: see `read_json`; or it holds another kind of value.
    """
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise FileError(f"{path} holds no JSON object: {remedy}")
    return content


def read_as(
    path: Path, kind: type[T], schema: int | None = None, remedy: str = COPY_AGAIN
) -> T:
    """Reads a JSON file as a dataclass or pydantic model, strictly.

    Nothing is converted but what JSON has no type for: lists become tuples, whole
    numbers floats. Fields that `kind` lacks are ignored.

    Args:
        path: the file.
        kind: what it holds; its annotations are the schema, with limits in `Annotated`.
        schema: the newest version that this package reads; None: the file has none.
        remedy: what the person can do about a damaged file, for the message.

    Raises:
        FileError: the file cannot be read, has a newer schema, or a field is missing,
            of another type or outside of its limits; the first such field is named.
    """
    data = read_bytes(path, remedy)
    content = parse_json(data, path, remedy)
    if not isinstance(content, dict):
        raise FileError(f"{path} holds no JSON object: {remedy}")
    if schema is not None:
        check_schema(content, schema, path, remedy)
    return _validate(data, kind, path, remedy)


def check_as(content: Any, kind: type[T], path: Path, remedy: str = COPY_AGAIN) -> T:
    """Checks a value that was read from a JSON file; see `read_as`.

    Raises:
        FileError: as `read_as`, of fields.
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
    """Checks the version that a file of ours states.

    Raises:
        FileError: there is none, or a newer one than `newest`.
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
        old: fields that a file holds.
        new: fields that are asked for; one that either lacks counts as `(none)` there.
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
    """Gives a temporary path beside `path`, which replaces it when the body ends.

    Its name is `.NAME.{tag}PID.tmp`.

    Where the body or the disk fails, `path` stays as it was, and the temporary file is
    removed. An OSError without a file's name gets it: "No space left on device" alone
    does not say which disk.
    """
    temporary = path.with_name(f".{path.name}.{tag}{os.getpid()}.tmp")
    try:
        with _name_path(temporary, path):
            # A link there must not be written through.
            temporary.unlink(missing_ok=True)
            yield temporary
            allow_reading(temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `path`, which replaces it when the body ends.

    Where the body or the disk fails, `path` stays as it was, and nothing is left
    behind; errors are named as in `write_whole`.
    """
    path = path.resolve()
    temporary, old = (path.with_name(f".{path.name}.{end}") for end in ("tmp", "old"))
    try:
        with _name_path(temporary, path):
            for leftover in (temporary, old):  # Of a process that was killed.
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
    """Gives errors of the system the name of what is written, not of a temporary."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            name = str(error.filename or temporary)
            error.filename = name.replace(str(temporary), str(path))
        raise
    # safetensors and tokenizers have errors of their own for what the system says.
    except Exception as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all; NaN and infinity are refused (ValueError)."""
    write_bytes(path, format_json(value).encode())


def format_json(value: Any) -> str:
    """Returns the text that `write_json` writes."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Half of a pair, such as a byte of a path that is not UTF-8, is no text in UTF-8.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def allow_reading(path: Path) -> None:
    """Gives a file the mode of a new one: some libraries write for the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def take_lock(path: Path) -> IO[str] | None:
    """Locks a file, made if need be; None where another process has.

    The lock ends when what is returned is closed, or with the process.
    """
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def show(text: str) -> str:
    r"""Returns the text as a terminal may have it: control characters as `\x1b`.

    Names in files may hold anything, and a terminal obeys what is no visible character
    (colours, titles, a cursor that moves, a direction of writing that changes).
    """
    return "".join(map(_show_character, text))


def show_names(names: Iterable[str], most: int = 4) -> str:
    """Returns names of a file for one line: the first few, cut, and how many more."""
    every = list(names)
    shown = ", ".join(show(name[:80]) for name in every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown


def show_value(value: object) -> str:
    """Returns a value of a file for one line, as Python writes it, and cut."""
    text = show(repr(value))
    return text if len(text) <= 100 else f"{text[:100]}..."


def _show_character(character: str) -> str:
    # Cc: controls; Cf: invisible ones, directions among them; Cs: halves of a pair. The
    # two joiners are part of words and of emoji.
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if not hidden or character in "\u200c\u200d":
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _describe(error: Any) -> str:
    """Returns the first of pydantic's complaints in a few words."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{show(place[:80])}: {first['msg'][:120]}" if place else first["msg"][:120]
