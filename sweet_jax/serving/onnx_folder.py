"""A model folder whose weights are segments for ONNX Runtime, in one precision.

model.json            as in a model folder; calibrated in this precision
onnx.json             the precision, how rows of tokens are made, measurements
encoder/config.json   the encoder's config, as published
tokenizer/            as published
segment_I.onnx        the graph and weights of segment I
calibration.npz       outputs on the calibration rows, in this precision
trained.npz           outputs of the trained model's last exit on the same rows
loader.py             runs the folder with onnxruntime, numpy and tokenizers alone;
checks.py, onnx_session.py  what it imports. This package runs no file of a folder.
checksums.json        sha256 of every other file
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import Field

from sweet_jax.arrays import LogitBank
from sweet_jax.data.tokenize import has_type_ids
from sweet_jax.data.tokenizer_classes import PreTrainedTokenizerFast
from sweet_jax.exits.calibration import Calibration
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import (
    ONNX,
    ModelFolderError,
    load_calibration,
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
_REMEDY = "copy the folder again, or export the model again"
_TRAINED = "trained.npz"
# Where Python keeps the compiled loader.
_PYTHONS = ("__pycache__",)
# Name in the folder -> name in `standalone`.
_CODE = {
    "loader.py": "onnx_loader.py",
    "checks.py": "checks.py",
    "onnx_session.py": "onnx_session.py",
}
_HERE = Path(__file__).parents[1] / "standalone"
_Count: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 48)]
_Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


@dataclasses.dataclass(frozen=True)
class TokenRules:
    """How rows of tokens are made, as far as tokenizer.json does not say it.

    Attributes:
        pad_id: token id of padding.
        truncation_side: `left` or `right`: where long texts lose tokens.
        has_type_ids: whether the encoder reads type ids; if not, they are 0.
    """

    pad_id: Annotated[int, Field(ge=0, lt=1 << 31)]
    truncation_side: Annotated[str, Field(pattern="^(left|right)$")]
    has_type_ids: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "TokenRules":
        """Returns the rules of a tokenizer."""
        pad_id = int(tokenizer.pad_token_id)  # type: ignore[arg-type]
        return cls(pad_id, tokenizer.truncation_side, has_type_ids(tokenizer))


@dataclasses.dataclass(frozen=True)
class ExitAccuracy:
    """Accuracy of one exit on the test rows.

    Attributes:
        layer: the layer that the exit reads.
        accuracy: in the precision of the folder.
        trained: of the trained model.
    """

    layer: _Count
    accuracy: _Share
    trained: _Share


@dataclasses.dataclass(frozen=True)
class CascadeAccuracy:
    """A cascade at a stored threshold, each model at its own.

    Attributes:
        criterion: the criterion.
        speedup: the speed-up that the thresholds were chosen for.
        accuracy: accuracy on the test rows, in the precision of the folder; None: no
            threshold reaches the speed-up.
        trained: of the trained model.
        differing: number of calibration rows with another label than that of the
            trained model's cascade; None if one of them has no threshold.
    """

    criterion: Annotated[str, Field(max_length=100)]
    speedup: Annotated[float, Field(gt=0, le=1e6)]
    accuracy: _Share | None
    trained: _Share | None
    differing: _Count | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The segments beside the trained model, measured when the folder was written.

    Attributes:
        test_rows: number of test rows.
        calibration_rows: number of calibration rows.
        exits: the exits, each alone.
        differing: number of calibration rows with another label at full depth.
        cascades: the cascades at the thresholds of the description.
    """

    test_rows: _Count
    calibration_rows: _Count
    exits: tuple[ExitAccuracy, ...]
    differing: _Count
    cascades: tuple[CascadeAccuracy, ...]

    def format(self, precision: str) -> str:
        """Returns lines of text, without the cascades of further criteria."""
        lines = [
            f"accuracy on {self.test_rows} test rows; how many of"
            f" {self.calibration_rows} calibration rows get another label than from"
            " the trained model:",
            f"{'':24}{precision:>9}{'trained':>9}{'differ':>8}",
        ]
        last = len(self.exits) - 1
        rows: list[tuple[str, float | None, float | None, int | None]] = [
            (f"exit {i}", x.accuracy, x.trained, self.differing if i == last else None)
            for i, x in enumerate(self.exits)
        ]
        rows += [
            (f"{x.criterion}, {x.speedup:g}x", x.accuracy, x.trained, x.differing)
            for x in self.cascades
            if x.criterion == self.cascades[0].criterion
        ]
        for name, *values, differing in rows:
            cells = [f"{'':9}" if x is None else f"{x:9.4f}" for x in values]
            count = "" if differing is None else str(differing)
            lines.append(f"{name[:24]:24}{''.join(cells)}{count:>8}".rstrip())
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class OnnxPart:
    """The content of onnx.json.

    Attributes:
        precision: precision of the products in the encoder's layers.
        tokens: how rows of tokens are made.
        comparison: measurements.
        schema: version of this file.
    """

    precision: Annotated[str, Field(pattern="^(float32|int8)$")]
    tokens: TokenRules
    comparison: Comparison
    schema: int = SCHEMA


def save_onnx_folder(
    path: Path,
    model: Path,
    description: ModelDescription,
    calibration: LogitBank,
    trained: LogitBank,
    segments: Sequence[bytes],
    part: OnnxPart,
) -> None:
    """Writes the folder, completely or not at all.

    Args:
        path: the folder.
        model: the model folder that config and tokenizer are copied from.
        description: description of the model, calibrated in this precision.
        calibration: outputs on the calibration rows in this precision.
        trained: outputs of the trained model on the same rows.
        segments: the segments, serialised.
        part: content of onnx.json.
    """
    with write_folder(path) as folder:
        for name in ("encoder", "tokenizer"):
            # Contents without permissions, since the source may be read-only.
            shutil.copytree(model / name, folder / name, copy_function=shutil.copyfile)
        for i, segment in enumerate(segments):
            write_bytes(folder / _name_segment(i), segment)
        for name, source in _CODE.items():
            shutil.copyfile(_HERE / source, folder / name)
        write_json(folder / ONNX, dataclasses.asdict(part))
        write_description(folder, description, calibration)
        last = dataclasses.replace(trained, logits=trained.logits[:, -1:], lte=None)
        last.save(folder / _TRAINED, description.digest)
        write_checksums(folder)


def is_onnx_folder(path: Path) -> bool:
    """Whether the folder has segments for ONNX Runtime instead of parameters."""
    return (path / ONNX).is_file()


def load_onnx_folder(path: Path) -> tuple[ModelDescription, list[bytes], OnnxPart]:
    """Reads and verifies the folder.

    Returns:
        The description, the segments, serialised, and the content of onnx.json.

    Raises:
        ModelFolderError: a newer schema, or files that are missing, altered or not
            listed.
    """
    try:
        description, checksums = read_description(
            path, (ONNX, _TRAINED), _name_segment("*"), _PYTHONS
        )
        load_served_config(path, description)
        part = read_as(path / ONNX, OnnxPart, SCHEMA, remedy=_REMEDY)
        names = [_name_segment(i) for i in range(len(description.exit_layers))]
        if missing := sorted({*names} - checksums.keys()):
            raise FileError(f"{path} lacks the file {missing[0]}: {_REMEDY}")
        verify_files(path, checksums, names, _MOST_BYTES, _REMEDY)
        segments = [read_bytes(path / name, _REMEDY, _MOST_BYTES) for name in names]
    except (FileError, FolderError) as error:
        raise ModelFolderError(str(error)) from error
    return description, segments, part


def load_onnx_calibration(path: Path, description: ModelDescription) -> Calibration:
    """Returns the calibration, whose full model is the trained one.

    Raises:
        ModelFolderError: a file is missing or damaged, or belongs to another model.
    """
    calibration = load_calibration(path, description)
    bank, file = calibration.bank, path / _TRAINED
    try:
        trained = LogitBank.load(file, _REMEDY, description.digest)
    except FileError as error:
        raise ModelFolderError(str(error)) from error
    same = trained.logits.shape == (len(bank.labels), 1, bank.logits.shape[2]) and all(
        np.array_equal(getattr(trained, name), getattr(bank, name))
        for name in ("labels", "weights", "row_ids", "part")
    )
    if not same:
        raise ModelFolderError(
            f"{file} has other rows or classes than calibration.npz: {_REMEDY}"
        )
    return dataclasses.replace(calibration, full=trained.logits[:, 0].argmax(axis=1))


def _name_segment(segment: int | str) -> str:
    return f"segment_{segment}.onnx"
