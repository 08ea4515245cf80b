"""Checks a folder before anything in it is used; needs only Python and numpy.

This file is copied into exported folders, beside `loader.py` and into `pytorch/`; it
also verifies model folders. Checksums detect damage, but anyone can write them: so
types, sizes and limits are always checked, too.
"""

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUMS, MANIFEST, SCHEMA = "checksums.json", "manifest.json", 1
_MOST_BYTES = 64 << 20  # Largest JSON file.
_MOST = 2**31 - 1  # Largest integer.
_AGAIN = "copy the folder again"


class FolderError(ValueError):
    """The folder cannot be used; the message is one line with problem and remedy."""


def read_checksums(
    folder: Path, but_for: Container[str] = (), remedy: str = _AGAIN
) -> dict[str, str]:
    """Returns name -> sha256 of all files, after checking that the list is complete.

    Args:
        folder: the folder to read.
        but_for: names of subfolders that are ignored.
        remedy: advice for damaged files, for the message.

    Raises:
        FolderError: a file is missing, not listed, a link, or not a regular file.
    """
    checksums = read_json(folder / CHECKSUMS, remedy)
    if not _is_map(checksums, lambda x: type(x) is str and len(x) == 64):
        raise FolderError(f"{folder / CHECKSUMS} lists no checksums: {remedy}")
    found = {CHECKSUMS}
    for name in _list_files(folder, but_for):
        # A listed name that leads out of the folder is never found, so it is an error.
        if name not in checksums and name != CHECKSUMS:
            raise FolderError(
                f"{folder} holds {_show(name)}, which its {CHECKSUMS} does not list:"
                " move it out of the folder"
            )
        found.add(name)
    if missing := sorted(checksums.keys() - found):
        raise FolderError(f"{folder} lacks the file {_show(missing[0])}: {remedy}")
    return checksums


def _show(name: str) -> str:
    """Returns a name with control characters escaped, for a terminal."""
    return repr(name[:200])[1:-1]


def _list_files(folder: Path, but_for: Container[str]) -> Iterator[str]:
    """Yields the files' names, with `/` between their parts."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                path = Path(entry.path)
                name = path.relative_to(folder).as_posix()
                if entry.is_symlink():
                    raise FolderError(
                        f"{folder} holds the link {_show(name)}: copy the folder"
                        " with what its links point to (cp -rL)"
                    )
                if entry.is_dir():
                    if entry.name not in but_for:
                        waiting.append(path)
                elif entry.is_file():
                    yield name
                else:
                    raise FolderError(
                        f"{folder} holds {_show(name)}, not a regular file: remove it"
                    )


def verify_files(
    folder: Path,
    checksums: dict[str, str],
    names: Iterable[str],
    most_bytes: int,
    remedy: str = _AGAIN,
) -> None:
    """Checks files against their checksums.

    Args:
        folder: the folder of the files.
        checksums: result of `read_checksums`.
        names: names of the files.
        most_bytes: limit on their total size.
        remedy: advice for damaged files, for the message.

    Raises:
        FolderError: a file is altered, or the files are too large.
    """
    for name in names:
        path = folder / name
        most_bytes -= path.stat().st_size
        if most_bytes < 0:
            raise FolderError(f"{path} is larger than any such file: {remedy}")
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        if checksum != checksums[name]:
            raise FolderError(
                f"{path} was altered or damaged (its checksum differs): {remedy}"
            )


def read_json(path: Path, remedy: str = _AGAIN) -> Any:
    """Reads strict JSON; raises FolderError if the file is missing or not JSON."""
    if not path.is_file():
        raise FolderError(f"{path} is missing: {remedy}")

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not valid JSON")

    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{path} is damaged ({error}): {remedy}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of an exported folder; raises FolderError if it is wrong."""
    path = folder / MANIFEST
    manifest = read_json(path)
    if type(manifest) is not dict:
        raise FolderError(f"{path} is not a JSON object: {_AGAIN}")
    if _is_int(manifest.get("schema"), SCHEMA + 1):
        raise FolderError(f"{folder} is newer than this loader: update sweet_jax")
    for name, fits in _FIELDS.items():
        if name not in manifest or not fits(manifest[name]):
            raise FolderError(f"{path} is damaged ({name}): {_AGAIN}")
    if problem := _find_problem(manifest):
        raise FolderError(f"{path} is damaged ({problem}): {_AGAIN}")
    return manifest


def read_weights(path: Path, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Returns the float32 arrays of weights.npz, which must match `shapes` exactly.

    Raises:
        FolderError: they do not match, or contain values that are not finite.
    """
    weights = {}
    try:
        with zipfile.ZipFile(path) as file:
            if sorted(file.namelist()) != sorted(f"{name}.npy" for name in shapes):
                raise ValueError(f"its arrays are not those of {MANIFEST}")
            # Before allocating memory.
            if count_bytes(*shapes.values()) > path.stat().st_size:
                raise ValueError(f"it has fewer bytes than {MANIFEST} says")
            for name, shape in shapes.items():
                with file.open(f"{name}.npy") as data:
                    np.lib.format.read_magic(data)
                    found = np.lib.format.read_array_header_1_0(data)
                    if found != (tuple(shape), False, np.dtype("<f4")):
                        raise ValueError(f"{name!r} is not a float32 array of {shape}")
                    values = np.frombuffer(data.read(count_bytes(shape)), "<f4")
                if wrong := np.count_nonzero(~np.isfinite(values)):
                    raise ValueError(f"{wrong} values of {name!r} are not finite")
                weights[name] = values.reshape(shape)
    except Exception as error:  # zipfile and numpy raise a dozen kinds.
        raise FolderError(
            f"{path} cannot be used ({describe(error)}): {_AGAIN}"
        ) from error
    return weights


def count_bytes(*shapes: list[int]) -> int:
    """Returns the bytes of float32 arrays."""
    return 4 * sum(map(math.prod, shapes))


def describe(error: Exception) -> str:
    """Returns an error message in one line that is safe for a terminal."""
    return _show(" ".join(str(error).split())) or type(error).__name__


def _is_int(x: Any, low: int = 0, high: int | float = math.inf) -> bool:
    return type(x) is int and low <= x <= high  # True is not a number.


def _is_number(x: Any, low: float, high: float) -> bool:
    return type(x) in (int, float) and low < x <= high


def _is_list(x: Any, fits: Callable[[Any], bool], least: int = 1) -> bool:
    return type(x) is list and len(x) >= least and all(map(fits, x))


def _is_map(x: Any, fits: Callable[[Any], bool]) -> bool:
    return type(x) is dict and len(x) > 0 and all(map(fits, x.values()))


def _is_text(x: Any) -> bool:
    return type(x) is str


def _is_rising(x: Any, low: int) -> bool:
    """Whether it is a list of integers, strictly ascending."""
    return _is_list(x, lambda n: _is_int(n, low, _MOST)) and sorted(set(x)) == x


def _are_arrays(x: Any) -> bool:
    def is_array(x: Any) -> bool:
        return (
            type(x) is dict
            and x.keys() == {"name", "shape", "dtype"}
            and _is_text(x["name"])
            and _is_list(x["shape"], lambda n: _is_text(n) or _is_int(n, 1, _MOST), 0)
            and x["dtype"] in ("int32", "float32", "bfloat16", "bool")
        )

    return _is_list(x, is_array)


def _is_program(x: Any) -> bool:
    return (
        type(x) is dict
        and x.keys() == {"file", "weights", "inputs", "outputs"}
        and _is_text(x["file"])
        and _is_list(x["weights"], _is_text)
        and _are_arrays(x["inputs"])
        and _are_arrays(x["outputs"])
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "schema": lambda x: _is_int(x, 1, SCHEMA),
    "label_names": lambda x: _is_list(x, _is_text, 2) and len(set(x)) == len(x),
    "pooling": lambda x: x in ("mean", "cls"),
    "exit_layers": lambda x: _is_rising(x, 0),
    "member_exits": lambda x: _is_list(x, lambda exits: _is_rising(exits, 0)),
    "max_length": lambda x: _is_int(x, 1, _MOST),
    "buckets": lambda x: _is_rising(x, 1),
    # Divisors that float32 can represent.
    "temperatures": lambda x: _is_list(x, lambda t: _is_number(t, 1e-30, 1e30)),
    "threshold_range": lambda x: (
        _is_list(x, lambda t: _is_number(t, 0.0, 1.0)) and len(x) == 2 and x[0] < x[1]
    ),
    "limits": lambda x: (
        _is_map(x, lambda n: _is_int(n, 1, _MOST))
        and x.keys() == {"token_ids", "mask", "type_ids"}
    ),
    "weights": lambda x: _is_map(
        x, lambda shape: _is_list(shape, lambda n: _is_int(n, 1, _MOST), 0)
    ),
    "programs": lambda x: _is_list(x, _is_program),
}


def _find_problem(manifest: dict[str, Any]) -> str | None:
    """Returns a contradiction between fields that are each valid, or None."""
    exits = range(len(manifest["exit_layers"]))
    if sorted(i for own in manifest["member_exits"] for i in own) != list(exits):
        return "member_exits"
    for name in ("temperatures", "programs"):
        if len(manifest[name]) != len(exits):
            return f"{name}: not one per exit"
    if manifest["buckets"][-1] < manifest["max_length"]:
        return "buckets"
    names = ("token_ids", "type_ids", "mask")
    state = {
        name: {"name": name, "shape": ["batch", "length"], "dtype": "int32"}
        for name in names
    }
    for i, program in enumerate(manifest["programs"]):
        if program["file"] != f"segment_{i}.jaxexp":
            return f"programs: the file of {i}"
        if not {*program["weights"]} <= manifest["weights"].keys():
            return f"programs: the weights of {i}"
        inputs, outputs = (
            {x["name"]: x for x in program[kind]} for kind in ("inputs", "outputs")
        )
        # A program may read only entries that the one before it read or wrote.
        if any(state.get(name) != x for name, x in inputs.items()):
            return f"programs: the inputs of {i}"
        state = inputs | outputs
        logits = {"shape": ["batch", len(manifest["label_names"])], "dtype": "float32"}
        if outputs.get("logits") != {"name": "logits", **logits}:
            return f"programs: the logits of {i}"
    return None
