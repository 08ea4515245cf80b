"""The weight files of an encoder's folder: one safetensors file, or shards.

Reading never unpickles and never runs code from a folder.
"""

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from safetensors import SafetensorError, safe_open

from sweet_jax.system import files

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Other files that are published instead of safetensors -> what they are, what to do.
_OTHERS = {
    "adapter_config.json": (
        "an adapter (PEFT), which is not an encoder: merge it into its base model"
        " (merge_and_unload) and save that"
    ),
    "tf_model.h5": "TensorFlow weights: save them with PyTorch's transformers",
    "flax_model.msgpack": "Flax weights: save them with PyTorch's transformers",
    "*.gguf": "GGUF weights, which are quantised: take the original ones",
    "**/*.onnx": "an ONNX program, which cannot be trained: take the original weights",
    "**/openvino_model.xml": (
        "an OpenVINO program, which cannot be trained: take the original weights"
    ),
}
# Headers of the largest published encoders have 0.1 MB; 100 MB would take very long.
_MOST_HEADER_BYTES = 4 << 20
_MOST_SHARDS = 1000
_REMEDY = "copy or download it again"


def find_weight_files(folder: Path) -> tuple[Path, ...]:
    """Returns the folder's safetensors files: the single one, or all shards.

    Raises:
        ValueError: there are none (the message says how to convert pickles), or a shard
            is missing.
    """
    if (folder / SINGLE_FILE).is_file():
        return (folder / SINGLE_FILE,)
    index = folder / INDEX_FILE
    if not index.is_file():
        if any(path for pattern in _PICKLES for path in folder.glob(pattern)):
            raise ValueError(
                f"{folder} has pickled weights only, which are never loaded: convert"
                f" them with `sweet-jax convert --from_torch {folder} OUT`,"
                " or name a revision that has safetensors (encoder.revision)"
            )
        for pattern, remedy in _OTHERS.items():
            if any(folder.glob(pattern)):
                raise ValueError(f"{folder} has no {SINGLE_FILE}; it holds {remedy}")
        raise ValueError(f"{folder} has no {SINGLE_FILE} and no {INDEX_FILE}")
    return find_shards(index)


@dataclasses.dataclass(frozen=True)
class _ShardIndex:
    """The content of a shard index: tensor -> file in the same folder."""

    weight_map: Annotated[dict[str, str], Len(1, 100_000)]


def find_shards(index: Path) -> tuple[Path, ...]:
    """Returns the weight files that an index lists, which lie beside it.

    Raises:
        ValueError: the index cannot be read, or names a file outside of its folder, or
            a shard is missing.
    """
    try:
        content = files.read_as(index, _ShardIndex, remedy=_REMEDY)
    except files.FileError as error:
        raise ValueError(f"{index} has no readable weight_map: {error}") from error
    names = sorted(set(content.weight_map.values()))
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]{0,200}", name):
            raise ValueError(
                f"{index} names the file {files.show_value(name)}: expected the name of"
                f" a file beside it: {_REMEDY}"
            )
    if len(names) > _MOST_SHARDS:
        raise ValueError(
            f"{index} names {len(names)} files, at most {_MOST_SHARDS} are read"
        )
    shards = tuple(index.with_name(name) for name in names)
    if gone := [file.name for file in shards if not file.is_file()]:
        raise ValueError(
            f"{index.parent} lacks the shards {files.show_names(gone)}: {_REMEDY}"
        )
    return shards


def compute_file_digest(files: tuple[Path, ...]) -> str:
    """Returns 16 hex digits of the files' bytes, in order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def open_weights(file: Path) -> Iterator[Any]:
    """Opens a safetensors file after checking the length of its header."""
    try:
        if not file.is_file():
            raise ValueError(f"{file} is not a regular file: {_REMEDY}")
        with file.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        if 8 + header <= file.stat().st_size and header > _MOST_HEADER_BYTES:
            raise ValueError(
                f"{file} has a header of {header} bytes, at most {_MOST_HEADER_BYTES}"
                f" are read: {_REMEDY}"
            )
        with safe_open(file, framework="numpy") as tensors:
            yield tensors
    except SafetensorError as error:
        reason = files.show(" ".join(str(error).split())[:200])
        raise ValueError(
            f"{file} is damaged or cut short ({reason}): copy or download it again"
        ) from error
    # The whole file is mapped into memory, which a memory limit may forbid.
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{file} cannot be read ({reason}): {_REMEDY}") from error
