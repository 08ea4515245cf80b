"""Hostile variants of files and folders, each a function of a random generator."""

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

SECRET = "secret.txt"  # lies beside the folder; no reader has a reason to open it
ELSEWHERE = "elsewhere.txt"
EVIL = "evil_module"
EVIL_CODE = "raise SystemExit('code of the folder ran')\n"
_MARK = "@@raw@@"
_MOST_BYTES = 1 << 24  # What is larger was made so.
# Values that JSON's own types allow, and that no field of ours or theirs expects.
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**40, -(2**63), 10**400, 0.0, -0.5, 1e308),
    *("", "../" + SECRET, "/etc/passwd", "..\\x", "x" * 5000, "\x1b]0;t\x07\u202e\x00"),
    *([], {}, [[[]]], [0, "a", None], {"a": {"b": []}}, ["bert"], "bert", "NaN"),
)
# Texts that stand where a value should, and that no JSON writer makes.
_RAW = (
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "[" * 100_000,
    '{"a":' * 2_000,
    '"\\ud800"',
    "tru",
)
_KEYS = (
    *("auto_map", "trust_remote_code", "custom_pipelines", "tokenizer_class"),
    *("vocab_file", "tokenizer_file", "_name_or_path", "__class__", "schema"),
    *("\x1b[31mred", "../" + SECRET, "chat_template", "quantization_config"),
)
_AUTO_MAP = {"AutoTokenizer": [f"{EVIL}.Evil", f"{EVIL}.Evil"], "AutoConfig": EVIL}


class _RunsWhenUnpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 3",)


def mutate_folder(folder: Path, rng: Random) -> str:
    """Makes one hostile change to a folder; returns what it was."""
    files = (path for path in folder.rglob("*") if path.is_file())
    path = rng.choice(sorted(p for p in files if p.stat().st_size < _MOST_BYTES))
    name = path.relative_to(folder).as_posix()
    if rng.random() < 0.75:
        return f"{_mutate_in_place(path, rng)} of {name}"
    change = rng.choice(tuple(_CHANGES))
    _CHANGES[change](path, folder, rng)
    return f"{change}: {name}"


def mutate_file(path: Path, rng: Random) -> str:
    """Makes one hostile change to a file; returns what it was."""
    return f"{_mutate_in_place(path, rng)} of {path.name}"


def _mutate_in_place(path: Path, rng: Random) -> str:
    kind, mutate = _find_mutation(path)
    data = path.read_bytes()
    try:
        changed = mutate(data, rng)
    except Exception:  # A change of before has left nothing to understand.
        kind, changed = "bytes", mutate_bytes(data, rng)
    path.write_bytes(changed)
    return kind


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """Returns the bytes cut, emptied, flipped, grown, shuffled or overwritten."""
    place = rng.randrange(len(data) + 1)
    size = rng.randrange(1, 64)
    noise = rng.randbytes(size)
    return rng.choice(
        (
            lambda: b"",
            lambda: data[:place],
            lambda: data[place:],
            lambda: _flip(data, rng),
            lambda: data[:place] + noise + data[place:],
            lambda: data[:place] + noise + data[place + size :],
            lambda: data[:place] + bytes(len(data) - place),
            lambda: data + data,
            lambda: b"\xff\xfe" + data.decode("latin-1").encode("utf-16-le"),
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\n", rng.choice((b"\r", b"\x00", b"\xe2\x80\xa8"))),
            lambda: b"\x1f\x8b\x08\x00" + noise,
        )
    )()


def mutate_json(data: bytes, rng: Random) -> bytes:
    """Returns a JSON value with one part of it replaced, removed, renamed or added."""
    value = json.loads(data)
    if rng.random() < 0.1:
        return rng.choice(_RAW).encode()
    spots = list(_list_spots(value, ()))
    raw = ""
    if not spots or rng.random() < 0.05:
        value = rng.choice(_VALUES)
    else:
        holder, key = rng.choice(spots)
        action = rng.choice(("value", "value", "value", "raw", "remove", "add"))
        if action == "remove":
            del holder[key]
        elif action == "raw":
            holder[key], raw = _MARK, rng.choice(_RAW)
        elif action == "value":
            holder[key] = rng.choice(_VALUES)
        elif isinstance(holder, dict):
            name = rng.choice(_KEYS)
            holder[name] = _AUTO_MAP if name == "auto_map" else rng.choice(_VALUES)
        else:
            holder.append(rng.choice(_VALUES))
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.replace(f'"{_MARK}"', raw).encode("utf-8", "surrogatepass")


def mutate_json_lines(data: bytes, rng: Random) -> bytes:
    """Returns JSON Lines, one of which is another value."""
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = mutate_json(lines[place], rng)
    return b"\n".join(lines)


def mutate_table(data: bytes, rng: Random) -> bytes:
    """Returns a csv or tsv with another cell, separator, quote or header."""
    lines = data.decode().split("\n")
    place = rng.randrange(len(lines))
    cell = rng.choice(
        ('"', '""', '"open', ",", "\t", ";", "\x00", "x" * 200_000, "NaN", "\ufeff")
    )
    line = lines[place]
    cut = rng.randrange(len(line) + 1)
    lines[place] = rng.choice(
        (line[:cut] + cell + line[cut:], cell, "", f"{line},{cell}", line[:cut])
    )
    return "\n".join(lines).encode()


def mutate_npz(data: bytes, rng: Random) -> bytes:
    """Returns an .npz with another member: absent, of another kind, or a trap."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = rng.choice(sorted(arrays))
    old = arrays[name]
    headers = {}
    action = rng.randrange(10)
    if action == 0:
        del arrays[name]
    elif action == 1:
        arrays[rng.choice(("more", "../" + SECRET, "\x1b[31m"))] = np.zeros(3)
    elif action == 2:
        arrays[name] = np.array([_RunsWhenUnpickled()], object)
    elif action == 3:
        headers[name] = rng.choice(("(1099511627776,)", "(-1,)", "(2, 2**40)", "()"))
    elif action == 4 and old.dtype.kind == "f" and old.size:
        arrays[name] = old.copy()
        arrays[name].flat[rng.randrange(old.size)] = rng.choice((np.nan, np.inf))
    elif action == 5 and old.dtype.kind in "iufb":
        arrays[name] = old.astype(rng.choice(("f8", "i8", "U8", "c16", "?")))
    elif action == 6:
        arrays[name] = old[..., None]
    elif action == 7:
        arrays[name] = old[:0] if old.ndim else np.zeros((0,), old.dtype)
    elif action == 8 and old.dtype.kind in "iuf":
        arrays[name] = old + np.array(rng.choice((1e9, -1e9, 300))).astype(old.dtype)
    else:
        return mutate_bytes(data, rng)
    return _write_npz(arrays, headers)


def mutate_safetensors(data: bytes, rng: Random) -> bytes:
    """Returns safetensors with another header, or other numbers."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    action = rng.randrange(4)
    if action == 0:
        return mutate_bytes(data, rng)
    if action == 1:
        length = rng.choice((0, 2**40, 2**63 - 1, length + 8, length - 1))
        return struct.pack("<Q", length) + header + body
    if action == 2:
        place = rng.randrange(len(body) // 4) * 4
        number = struct.pack("<f", rng.choice((float("nan"), float("inf"))))
        return data[: 8 + length] + body[:place] + number + body[place + 4 :]
    header = mutate_json(header, rng)
    return struct.pack("<Q", len(header)) + header + body


def _find_mutation(path: Path) -> tuple[str, Callable[[bytes, Random], bytes]]:
    mutations: dict[str, tuple[str, Callable[[bytes, Random], bytes]]] = {
        ".json": ("JSON", mutate_json),
        ".jsonl": ("JSON lines", mutate_json_lines),
        ".csv": ("table", mutate_table),
        ".tsv": ("table", mutate_table),
        ".npz": ("arrays", mutate_npz),
        ".safetensors": ("tensors", mutate_safetensors),
    }
    return mutations.get(path.suffix, ("bytes", mutate_bytes))


def _list_spots(value: Any, path: tuple[Any, ...]) -> Any:
    """Yields (holder, key) of every value inside of a JSON value."""
    if isinstance(value, dict):
        items: Any = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, item in items:
        yield value, key
        yield from _list_spots(item, (*path, key))


def _flip(data: bytes, rng: Random) -> bytes:
    flipped = bytearray(data or b"\x00")
    for _ in range(rng.choice((1, 1, 8))):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _write_npz(arrays: dict[str, np.ndarray], headers: dict[str, str]) -> bytes:
    """Returns an .npz; members in `headers` claim that shape, whatever they hold."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=True)
            content = member.getvalue()
            if name in headers:
                description = np.lib.format.dtype_to_descr(array.dtype)
                text = (
                    f"{{'descr': {description!r}, 'fortran_order': False,"
                    f" 'shape': {headers[name]}, }}\n"
                )
                size = struct.pack("<H", len(text))
                content = b"\x93NUMPY\x01\x00" + size + text.encode() + bytes(64)
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def _replace_by(make: Callable[[Path, Path], None]) -> Callable[..., None]:
    def change(path: Path, folder: Path, rng: Random) -> None:
        path.unlink()
        make(path, folder)

    return change


def _swap(path: Path, folder: Path, rng: Random) -> None:
    files = (p for p in folder.rglob("*") if p.is_file())
    other = rng.choice(sorted(p for p in files if p.stat().st_size < _MOST_BYTES))
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def _add(path: Path, folder: Path, rng: Random) -> None:
    name = rng.choice(
        (
            f"{EVIL}.py",
            "sitecustomize.py",
            "conftest.py",
            "json.py",
            "more.json",
            "a\nb",
        )
    )
    (path.parent / name).write_text(EVIL_CODE, encoding="utf-8")


def _enlarge(path: Path, folder: Path, rng: Random) -> None:
    os.truncate(path, 1 << 36)  # takes no room on the disk


def _ask_for_code(path: Path, folder: Path, rng: Random) -> None:
    """Lets a configuration name code that lies beside it."""
    for config in folder.rglob("*config.json"):
        if config.is_file():
            content = json.loads(config.read_bytes())
            content["auto_map"] = _AUTO_MAP
            if rng.random() < 0.7:
                content["tokenizer_class"] = "Evil"
            config.write_text(json.dumps(content), encoding="utf-8")
            (config.parent / f"{EVIL}.py").write_text(EVIL_CODE, encoding="utf-8")


_CHANGES: dict[str, Callable[[Path, Path, Random], None]] = {
    "removed": _replace_by(lambda path, _: None),
    "a folder in its place": _replace_by(lambda path, _: path.mkdir()),
    "a pipe in its place": _replace_by(lambda path, _: os.mkfifo(path)),
    "a link to /dev/zero": _replace_by(lambda path, _: path.symlink_to("/dev/zero")),
    "a link to nowhere": _replace_by(lambda path, _: path.symlink_to("nowhere")),
    # Allowed as such: the hub's cache is made of links to files elsewhere.
    "a link out of the folder": _replace_by(
        lambda path, folder: path.symlink_to(folder.parent / ELSEWHERE)
    ),
    "a link to itself": _replace_by(lambda path, _: path.symlink_to(path.name)),
    "64 GiB of zeros": _enlarge,
    "exchanged with another": _swap,
    "a stranger beside it": _add,
    "code asked for": _ask_for_code,
    "renamed": lambda path, folder, rng: shutil.move(path, path.with_suffix(".old")),
}
