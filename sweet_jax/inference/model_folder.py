"""The model folder: all that is needed to use a trained classifier later.

model.json            what the model is, its labels, calibration, thresholds
encoder/config.json   of the encoder, as published
tokenizer/            as published
params.safetensors    all parameters, float32, at their paths
calibration.npz       outputs on the calibration rows, to choose thresholds on
checksums.json        sha256 of every other file
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sweet_jax.arrays import LogitBank, Params, read_digest
from sweet_jax.trees import flatten_paths, unflatten_paths

SCHEMA = 1
_CHECKSUMS = "checksums.json"
_CALIBRATION = "calibration.npz"  # Folders of earlier versions have none.


class ModelFolderError(ValueError):
    """The folder is no model, damaged, altered or of a newer schema."""


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """What a model folder says of its model (model.json).

    Attributes:
        method: as shown to people, such as `sweet(a=0.2)`.
        task: name of the task it was trained on.
        metric: of its scores.
        label_names: name of each class.
        has_pairs: inputs are pairs of texts.
        exit_layers: the layer each exit reads.
        member_exits: the exits of each model trained on its own.
        shared_pooler: one pooler for all exits (faithful_release).
        pooling: `mean` or `cls`.
        dtype: computation type.
        matmul_precision: of jax, in training.
        ignore_attributes: of the encoder's config.json.
        max_length: longest input in tokens.
        buckets: lengths that batches are padded to.
        temperatures: of each exit.
        cost_fractions: of leaving at each exit.
        thresholds: criterion -> [{target, threshold, ...}], chosen on calibration.
        digest: of the training settings and inputs.
        schema: of this description.
        separate_tables: each segment has its own copy of tables that layers share.
        lte_ranges: lowest and highest learning-to-exit score of each exit on the rows
            of the fit; () where no exit has a head for it.
        bucket_rows: calibration rows whose length falls into each bucket; () in folders
            of earlier versions.
    """

    method: str
    task: str
    metric: str
    label_names: tuple[str, ...]
    has_pairs: bool
    exit_layers: tuple[int, ...]
    member_exits: tuple[tuple[int, ...], ...]
    shared_pooler: bool
    pooling: str
    dtype: str
    matmul_precision: str
    ignore_attributes: tuple[str, ...]
    max_length: int
    buckets: tuple[int, ...]
    temperatures: tuple[float, ...]
    cost_fractions: tuple[float, ...]
    thresholds: dict[str, list[dict[str, Any]]]
    digest: str
    schema: int = SCHEMA
    separate_tables: bool = False
    lte_ranges: tuple[tuple[float, float], ...] = ()
    bucket_rows: tuple[int, ...] = ()


def save_model_folder(
    path: Path,
    description: ModelDescription,
    params: Params,
    encoder_config: Path,
    tokenizer: Any,
    calibration: LogitBank | None = None,
) -> None:
    """Writes a model folder, whole or not at all.

    Args:
        path: the folder; an older one is replaced.
        description: what the model is.
        params: of the serving model.
        encoder_config: config.json of the encoder.
        tokenizer: of the encoder (has `save_pretrained`).
        calibration: outputs on the calibration rows; None: no budget can be met later.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "encoder").mkdir(parents=True)
    shutil.copyfile(encoder_config, temporary / "encoder" / "config.json")
    tokenizer.save_pretrained(str(temporary / "tokenizer"))
    flat = {name: np.asarray(leaf) for name, leaf in flatten_paths(params).items()}
    save_file(flat, temporary / "params.safetensors")
    update_description(temporary, description, calibration)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def update_description(
    path: Path, description: ModelDescription, calibration: LogitBank | None = None
) -> None:
    """Writes what evaluation knows of a model whose weights the folder holds.

    Args:
        path: the folder.
        description: what the model is.
        calibration: outputs on the calibration rows; None: the folder keeps its own.
    """
    if calibration is not None:
        calibration.save(path / _CALIBRATION, description.digest)
    text = json.dumps(dataclasses.asdict(description), indent=1, ensure_ascii=False)
    (path / "model.json").write_text(text + "\n", encoding="utf-8")
    text = json.dumps(compute_checksums(path), indent=1)
    (path / _CHECKSUMS).write_text(text + "\n", encoding="utf-8")


def compute_checksums(folder: Path) -> dict[str, str]:
    """Returns name -> sha256 of every file in a folder, but for `checksums.json`."""
    files = (file for file in folder.rglob("*") if file.is_file())
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    return {name: _hash(folder / name) for name in names if name != _CHECKSUMS}


def load_model_folder(path: Path) -> tuple[ModelDescription, Params]:
    """Reads and verifies a model folder.

    Raises:
        ModelFolderError: no such folder, a newer schema, a file missing or altered.
    """
    if not (path / "model.json").is_file():
        raise ModelFolderError(
            f"{path} is no model folder: it has no model.json (a run writes it as"
            " WORKDIR/model)"
        )
    try:
        fields = json.loads((path / "model.json").read_text(encoding="utf-8"))
        sums = json.loads((path / _CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}): copy it again") from error
    if not isinstance(sums, dict) or "schema" not in fields:
        raise ModelFolderError(f"{path} is damaged (no schema): copy it again")
    if fields["schema"] > SCHEMA:
        raise ModelFolderError(
            f"{path} has schema {fields['schema']}, this version reads up to {SCHEMA}:"
            " update sweet_jax"
        )
    for name, expected in sums.items():
        if not (path / name).is_file():
            raise ModelFolderError(f"{path} lacks the file {name}: copy it again")
        if _hash(path / name) != expected:
            raise ModelFolderError(
                f"{path / name} was altered or damaged (its checksum differs): copy the"
                " folder again"
            )
    known = {field.name for field in dataclasses.fields(ModelDescription)}
    kept = {name: _freeze(value) for name, value in fields.items() if name in known}
    kept["thresholds"] = fields["thresholds"]
    params = unflatten_paths(load_file(path / "params.safetensors"))
    return ModelDescription(**kept), params


def load_calibration(path: Path, description: ModelDescription) -> LogitBank:
    """Reads the outputs on the calibration rows, before temperature, both parts.

    Raises:
        ModelFolderError: the folder has none, they are damaged, or they are of another
            training than the description.
    """
    file = path / _CALIBRATION
    if not file.is_file():
        stored = sorted(
            {
                row["target"]
                for rows in description.thresholds.values()
                for row in rows
                if row["score"] is not None
            }
        )
        raise ModelFolderError(
            f"{path} has no {_CALIBRATION} to choose thresholds on (the folder is of an"
            " earlier version): delete results.json of its run and repeat the run's"
            " command, which evaluates again without training, or take a threshold of"
            f" model.json, chosen for speed-ups {', '.join(f'{s:g}' for s in stored)}"
        )
    if read_digest(file) != description.digest:
        raise ModelFolderError(
            f"{file} is damaged or of another training than model.json: copy the folder"
            " again"
        )
    return LogitBank.load(file)


def compute_folder_digest(path: Path) -> str:
    """Returns the sha256 of a model folder: of the checksums of all its files."""
    return _hash(path / _CHECKSUMS)


def _freeze(value: Any) -> Any:
    """Returns JSON's lists as tuples."""
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
