"""The model folder: everything needed to use a trained classifier later.

model.json            description of the model, labels, calibration, thresholds
encoder/config.json   the encoder's config, as published
tokenizer/            as published
params.safetensors    all parameters, float32, at their paths
calibration.npz       outputs on the calibration rows, for choosing thresholds
checksums.json        sha256 of every other file
"""

import dataclasses
import fnmatch
import math
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.exits.calibration import Calibration
from sweet_jax.huggingface.config import load_config
from sweet_jax.models.encoder import EncoderConfig
from sweet_jax.serving.description import SCHEMA, ModelDescription
from sweet_jax.serving.served_model import compute_served_shapes
from sweet_jax.standalone.checks import (
    CHECKSUMS,
    FolderError,
    read_checksums,
    verify_files,
)
from sweet_jax.system.checksums import write_checksums
from sweet_jax.system.files import (
    FileError,
    check_schema,
    hash_file,
    read_as,
    read_object,
    show,
    write_folder,
    write_json,
    write_whole,
)
from sweet_jax.trees import flatten_paths, unflatten_paths

REMEDY = (
    "copy the folder again, or delete it and results.json of its run and repeat the"
    " run's command"
)
_DESCRIPTION = "model.json"
_CONFIG = "encoder/config.json"
_PARAMS = "params.safetensors"
# Marks a folder with segments for ONNX Runtime instead of parameters (`onnx_folder`).
ONNX = "onnx.json"
_CALIBRATION = "calibration.npz"
# Size limits, far above those of any run: of calibration.npz, and of all other files
# except params.safetensors together.
_MOST_BYTES, _MOST_CALIBRATION_BYTES = 256 << 20, 2 << 30


class ModelFolderError(FileError):
    """The folder is not a model folder, or is damaged, altered or of a newer schema."""


def save_model_folder(
    path: Path,
    description: ModelDescription,
    params: Params,
    encoder_config: Path,
    tokenizer: Any,
    calibration: LogitBank,
) -> None:
    """Writes a model folder, completely or not at all.

    Args:
        path: the folder; an older one is replaced.
        description: description of the model.
        params: parameters of the serving model.
        encoder_config: config.json of the encoder.
        tokenizer: tokenizer of the encoder (has `save_pretrained`).
        calibration: outputs on the calibration rows.
    """
    with write_folder(path) as folder:
        (folder / _CONFIG).parent.mkdir()
        shutil.copyfile(encoder_config, folder / _CONFIG)
        tokenizer.save_pretrained(str(folder / "tokenizer"))
        flat = {name: np.asarray(leaf) for name, leaf in flatten_paths(params).items()}
        with write_whole(folder / _PARAMS) as file:
            save_file(flat, file)
        write_description(folder, description, calibration)
        write_checksums(folder)


def update_description(
    path: Path, description: ModelDescription, calibration: LogitBank
) -> None:
    """Replaces description and calibration of a model folder; its weights stay.

    Args:
        path: the folder.
        description: description of the model.
        calibration: outputs on the calibration rows.

    Raises:
        ModelFolderError: the folder is damaged; its checksums are not renewed.
    """
    try:
        checksums = _read_checksums(path, [_PARAMS])
        verify_files(path, checksums, checksums, 1 << 50, REMEDY)
    except (FileError, FolderError) as error:
        raise ModelFolderError(str(error)) from error
    with write_folder(path) as folder:
        for name in checksums:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            # Links avoid a second copy of the weights. Changed files are replaced,
            # never written to.
            try:
                (folder / name).hardlink_to(path / name)
            except OSError:  # A file system without links.
                shutil.copyfile(path / name, folder / name)
        write_description(folder, description, calibration)
        write_checksums(folder)


def load_model_folder(path: Path) -> tuple[ModelDescription, Params]:
    """Reads and verifies a model folder, which may come from an untrusted source.

    No code in it is run, and sizes are checked before memory is allocated.

    Raises:
        ModelFolderError: no such folder, a newer schema, files that are missing,
            altered or not listed, parameters with other shapes than the description and
            the encoder have, or parameters with NaN or infinity.
        ValueError: the encoder's config.json is not supported (`load_config`).
    """
    if (path / ONNX).is_file():
        raise ModelFolderError(
            f"{path} has segments for ONNX Runtime, not the parameters of a model: give"
            " the model folder of the run (WORKDIR/model), or load it with"
            " backend=onnx"
        )
    try:
        description, checksums = read_description(path, [_PARAMS], _PARAMS)
        config = load_served_config(path, description)
        shapes = compute_served_shapes(description, config)
        params = _read_params(path, checksums, shapes)
    except (FileError, FolderError) as error:
        raise ModelFolderError(str(error)) from error
    return description, unflatten_paths(params)


def read_description(
    path: Path, needed: Collection[str], weights: str, ignored: Collection[str] = ()
) -> tuple[ModelDescription, dict[str, str]]:
    """Returns the description in a folder, and the checksums of its files.

    Args:
        path: the folder.
        needed: names of files that it must have beside the usual ones.
        weights: pattern of the names of files that are not verified here.
        ignored: names of subfolders that may hold anything, since nothing reads them.

    Raises:
        ModelFolderError: it has no description.
        FileError: a newer schema, or files that are missing or damaged.
        FolderError: files that are altered or not listed.
    """
    file = path / _DESCRIPTION
    if not file.is_file():
        raise ModelFolderError(
            f"{path} is not a model folder: it has no {_DESCRIPTION} (a run writes one"
            " to WORKDIR/model)"
        )
    # First of all, because a newer version may have other files.
    check_schema(read_object(file, REMEDY), SCHEMA, file, REMEDY)
    checksums = _read_checksums(path, needed, ignored)
    small = checksums.keys() - {*fnmatch.filter(checksums, weights), _CALIBRATION}
    verify_files(path, checksums, small, _MOST_BYTES, REMEDY)
    verify_files(path, checksums, [_CALIBRATION], _MOST_CALIBRATION_BYTES, REMEDY)
    description = read_as(file, ModelDescription, SCHEMA, remedy=REMEDY)
    try:
        description.check_names()
    except ValueError as error:
        raise FileError(f"{file}: {show(str(error))}") from error
    return description, checksums


def write_description(
    folder: Path, description: ModelDescription, calibration: LogitBank
) -> None:
    """Writes description and calibration into a folder."""
    calibration.save(folder / _CALIBRATION, description.digest)
    write_json(folder / _DESCRIPTION, dataclasses.asdict(description))


def load_calibration(path: Path, description: ModelDescription) -> Calibration:
    """Returns the calibration of a model: its rows and the values fitted on them.

    Raises:
        ModelFolderError: the file is missing or damaged, or belongs to another training
            or model than the description.
    """
    file = path / _CALIBRATION
    try:
        bank = LogitBank.load(file, REMEDY, description.digest)
    except FileError as error:
        raise ModelFolderError(str(error)) from error
    d = description
    found = (*bank.logits.shape, bank.lte is not None)
    sizes = (sum(d.bucket_rows), len(d.exit_layers), len(d.label_names))
    if found != (*sizes, bool(d.lte_ranges)):
        raise ModelFolderError(
            f"{file} has other rows, exits or classes than {_DESCRIPTION}: {REMEDY}"
        )
    return Calibration(
        bank,
        np.array(d.temperatures, np.float32),
        np.array(d.lte_ranges, np.float32) if d.lte_ranges else None,
        np.array(d.cost_fractions),
        d.metric,
    )


def compute_folder_digest(path: Path) -> str:
    """Returns the sha256 of a model folder, computed from its file checksums."""
    return hash_file(path / CHECKSUMS)


def _read_checksums(
    path: Path, needed: Collection[str], ignored: Collection[str] = ()
) -> dict[str, str]:
    """Returns name -> sha256 of the files; the required ones must be among them."""
    checksums = read_checksums(path, ignored, REMEDY)
    wanted = {_DESCRIPTION, _CONFIG, _CALIBRATION, *needed}
    if missing := sorted(wanted - checksums.keys()):
        raise FileError(f"{path} lacks the file {missing[0]}: {REMEDY}")
    return checksums


def load_served_config(path: Path, description: ModelDescription) -> EncoderConfig:
    """Returns the config of the encoder in a folder.

    Raises:
        FileError: the description contradicts it.
        ValueError: the config is not supported (`load_config`).
    """
    config = load_config(path / "encoder", description.ignore_attributes)
    problem = None
    if description.buckets[-1] > config.max_positions:
        problem = f"buckets up to {description.buckets[-1]} of {config.max_positions}"
    if description.exit_layers[-1] >= config.num_layers:
        problem = f"exit_layers up to {description.exit_layers[-1]} of"
        problem += f" {config.num_layers} layers"
    if problem:
        raise FileError(
            f"{path / _DESCRIPTION} contradicts {_CONFIG} ({problem}): {REMEDY}"
        )
    return config


def _read_params(
    path: Path, checksums: dict[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Returns the parameters; they must have exactly these paths and shapes."""
    file = path / _PARAMS
    num_bytes = 4 * sum(map(math.prod, shapes.values()))
    # Besides the values, the format has only names and offsets.
    most_bytes = num_bytes + 1000 * len(shapes) + (1 << 20)
    verify_files(path, checksums, [_PARAMS], most_bytes, REMEDY)
    try:
        with safe_open(file, framework="numpy") as tensors:
            found = {}
            for name in tensors.keys():  # noqa: SIM118 (it has no iterator)
                view = tensors.get_slice(name)
                found[name] = (tuple(view.get_shape()), view.get_dtype())
            wanted = {name: (shape, "F32") for name, shape in shapes.items()}
            if found != wanted:
                differing = min({*found.items()} ^ {*wanted.items()}, key=str)[0]
                raise FileError(
                    f"{file} has other tensors than {_DESCRIPTION} and {_CONFIG}"
                    f" describe, the first {show(differing[:100])}: found"
                    f" {found.get(differing)}, expected {wanted.get(differing)}:"
                    f" {REMEDY}"
                )
            params = {name: tensors.get_tensor(name) for name in found}
    except SafetensorError as error:
        raise FileError(
            f"{file} is damaged ({show(str(error)[:200])}): {REMEDY}"
        ) from error
    for name, values in params.items():
        # min and max propagate NaN, and need no memory for a mask.
        if not np.isfinite([values.min(), values.max()]).all():
            wrong = np.count_nonzero(~np.isfinite(values))
            raise FileError(
                f"{file}: {wrong} of {values.size} values of {name} are not finite"
                " numbers: use another model, or train this one again"
            )
    return params
