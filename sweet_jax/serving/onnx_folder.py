"""A model folder whose weights are segments for ONNX Runtime, in one precision.

model.json            as in a model folder; calibrated in this precision
onnx.json             the precision
encoder/config.json   the encoder's config, as published
tokenizer/            as published
segment_I.onnx        the graph and weights of segment I
calibration.npz       outputs on the calibration rows, in this precision
checksums.json        sha256 of every other file
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from sweet_jax.arrays import LogitBank
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import (
    ONNX,
    REMEDY,
    ModelFolderError,
    load_served_config,
    read_description,
    write_description,
)
from sweet_jax.standalone.checks import FolderError, verify_files
from sweet_jax.system.checksums import write_checksums
from sweet_jax.system.files import (
    FileError,
    read_as,
    read_bytes,
    write_bytes,
    write_folder,
    write_json,
)

SCHEMA = 1
# Far above the weights of any encoder in 32 bits.
_MOST_BYTES = 64 << 30


@dataclasses.dataclass(frozen=True)
class OnnxPart:
    """The content of onnx.json.

    Attributes:
        precision: precision of the products in the encoder's layers.
        schema: version of this file.
    """

    precision: Annotated[str, Field(pattern="^(float32|int8)$")]
    schema: int = SCHEMA


def save_onnx_folder(
    path: Path,
    model: Path,
    description: ModelDescription,
    calibration: LogitBank,
    segments: Sequence[bytes],
    precision: str,
) -> None:
    """Writes the folder, completely or not at all.

    Args:
        path: the folder.
        model: the model folder that config and tokenizer are copied from.
        description: description of the model, calibrated in this precision.
        calibration: outputs on the calibration rows in this precision.
        segments: the segments, serialised.
        precision: see `OnnxPart`.
    """
    with write_folder(path) as folder:
        for part in ("encoder", "tokenizer"):
            # Contents without permissions, since the source may be read-only.
            shutil.copytree(model / part, folder / part, copy_function=shutil.copyfile)
        for i, segment in enumerate(segments):
            write_bytes(folder / _name_segment(i), segment)
        write_json(folder / ONNX, dataclasses.asdict(OnnxPart(precision)))
        write_description(folder, description, calibration)
        write_checksums(folder)


def is_onnx_folder(path: Path) -> bool:
    """Whether the folder has segments for ONNX Runtime instead of parameters."""
    return (path / ONNX).is_file()


def load_onnx_folder(path: Path) -> tuple[ModelDescription, list[bytes], str]:
    """Reads and verifies the folder.

    Returns:
        The description, the segments, serialised, and their precision.

    Raises:
        ModelFolderError: a newer schema, or files that are missing, altered or not
            listed.
    """
    try:
        description, checksums = read_description(path, ONNX, _name_segment("*"))
        load_served_config(path, description)
        part = read_as(path / ONNX, OnnxPart, SCHEMA, remedy=REMEDY)
        names = [_name_segment(i) for i in range(len(description.exit_layers))]
        if missing := sorted({*names} - checksums.keys()):
            raise FileError(f"{path} lacks the file {missing[0]}: {REMEDY}")
        verify_files(path, checksums, names, _MOST_BYTES, REMEDY)
        segments = [read_bytes(path / name, REMEDY, _MOST_BYTES) for name in names]
    except (FileError, FolderError) as error:
        raise ModelFolderError(str(error)) from error
    return description, segments, part.precision


def _name_segment(segment: int | str) -> str:
    return f"segment_{segment}.onnx"
