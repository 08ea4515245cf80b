"""Exports a model folder to a folder that runs without this package.

manifest.json     description of the model, and the programs with their arguments
checksums.json    sha256 of every other file
segment_I.jaxexp  the program of segment I (jax.export: StableHLO for every platform)
weights.npz       all parameters, float32, at their paths; programs share them
tokenizer/        as published
loader.py         runs the folder with jax, numpy, flatbuffers (standalone/loader.py)
checks.py         checks that the loader makes first (standalone/checks.py)
pytorch/          on request, the same model for PyTorch (see `export/pytorch.py`)
"""

import dataclasses
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sweet_jax.arrays import save_npz
from sweet_jax.exits.criteria import threshold_range
from sweet_jax.export.programs import PLATFORMS, Program, Specs, export_programs
from sweet_jax.export.pytorch import write_pytorch
from sweet_jax.huggingface.config import load_config
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.serving.load import load
from sweet_jax.standalone.checks import MANIFEST, SCHEMA
from sweet_jax.system.checksums import write_checksums
from sweet_jax.system.files import write_bytes, write_folder, write_json
from sweet_jax.system.packages import install_extra
from sweet_jax.trees import flatten_paths

logger = logging.getLogger(__name__)

# The loader's criterion; it needs only logits and temperatures.
CRITERION = "confidence"
_HERE = Path(__file__).parents[1] / "standalone"


class ExportError(ValueError):
    """The folder cannot be written, or a package that export needs is missing."""


def export_folder(model: Path, out: Path, pytorch: bool = False) -> str:
    """Writes an exported folder, completely or not at all.

    Args:
        model: a model folder (`WORKDIR/model`).
        out: the folder to write.
        pytorch: whether to add the part for PyTorch.

    Returns:
        One line that describes the written folder.

    Raises:
        ModelFolderError: `model` is not a model folder, or is damaged.
        ExportError: `out` exists, or flatbuffers is not installed.
        ValueError: PyTorch cannot represent the model (see `write_pytorch`).
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ExportError(
            "export needs flatbuffers, with which jax writes programs:"
            f" {install_extra('export')}"
        )
    if out.exists():
        raise ExportError(f"{out} already exists: name another folder with --out")
    classifier = load(model)
    d, params = classifier.description, classifier.params
    with write_folder(out) as temporary:
        programs = _write_programs(classifier, temporary)
        # Contents without permissions, since the source may be read-only.
        for file in (model / "tokenizer").rglob("*"):
            copy = temporary / file.relative_to(model)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if file.is_file():
                shutil.copyfile(file, copy)
        for name in ("loader.py", "checks.py"):
            shutil.copyfile(_HERE / name, temporary / name)
        encoder = load_config(model / "encoder", d.ignore_attributes)
        manifest = _describe(classifier, encoder.vocab_size, programs)
        if pytorch:
            write_pytorch(model, d, params, temporary / "pytorch")
        write_json(temporary / MANIFEST, manifest)
        write_checksums(temporary)
        size = sum(file.stat().st_size for file in temporary.rglob("*"))
    return (
        f"{out}: {len(programs)} programs for {', '.join(PLATFORMS)}, inputs of up to"
        f" {manifest['max_length']} tokens, {size / 1e6:.1f} MB"
    )


def _write_programs(classifier: AdaptiveClassifier, folder: Path) -> list[Program]:
    """Writes programs and weights; returns the programs."""
    d = classifier.description
    logger.info("writing the programs of %d segments", len(d.exit_layers))
    # The precision becomes part of the program: that of the run, for which thresholds
    # were chosen.
    with jax.default_matmul_precision(d.matmul_precision):
        programs = export_programs(
            classifier.model,
            classifier.params,
            d.exit_layers,
            len(d.label_names),
            d.max_length,
        )
    for i, program in enumerate(programs):
        write_bytes(folder / _name_program(i), bytes(program.exported.serialize()))
    flat = flatten_paths(classifier.params)
    save_npz(folder / "weights.npz", {path: np.asarray(x) for path, x in flat.items()})
    return programs


def _describe(
    classifier: AdaptiveClassifier, vocab_size: int, programs: list[Program]
) -> dict[str, Any]:
    """Returns the manifest."""
    d = classifier.description
    kept = (
        *("method", "task", "metric", "label_names", "has_pairs", "exit_layers"),
        *("max_length", "buckets", "dtype", "matmul_precision", "temperatures"),
        *("cost_fractions", "thresholds", "lte_ranges", "digest"),
        *("member_exits", "pooling"),
    )
    fields = dataclasses.asdict(d)
    return {
        "schema": SCHEMA,
        "jax": jax.__version__,
        "platforms": PLATFORMS,
        **{name: fields[name] for name in kept},
        "pooler_activation": classifier.model.pooler_activation,
        "criterion": CRITERION,
        "threshold_range": threshold_range(
            CRITERION, len(d.label_names), len(d.exit_layers)
        ),
        # Exclusive upper limits of the inputs.
        "limits": {"token_ids": vocab_size, "mask": 2, "type_ids": 2},
        "weights": {
            path: list(leaf.shape)
            for path, leaf in flatten_paths(classifier.params).items()
        },
        "programs": [
            {
                "file": _name_program(i),
                "weights": program.weights,
                "inputs": _describe_arrays(program.inputs),
                "outputs": _describe_arrays(program.outputs),
            }
            for i, program in enumerate(programs)
        ],
    }


def _describe_arrays(specs: Specs) -> list[dict[str, Any]]:
    """Returns names, shapes and types; an axis is a number or a name (`length`)."""
    return [
        {
            "name": name,
            "shape": [x if isinstance(x, int) else str(x) for x in spec.shape],
            "dtype": str(spec.dtype),
        }
        for name, spec in specs.items()
    ]


def _name_program(segment: int) -> str:
    return f"segment_{segment}.jaxexp"
