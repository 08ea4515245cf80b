"""A model folder as an exported folder, which runs without this package.

manifest.json     what the model is, the programs with their arguments
checksums.json    sha256 of every other file
segment_I.jaxexp  the program of segment I (jax.export: StableHLO for every platform)
weights.npz       all parameters, float32, at their paths; programs share them
tokenizer/        as published
loader.py         runs the folder with jax, numpy and flatbuffers (exported/loader.py)
checks.py         what the loader verifies first (exported/checks.py)
pytorch/          on request, the same model for PyTorch (see `pytorch_export`)
"""

import dataclasses
import importlib.util
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
from sweet_jax.serving.classifier import AdaptiveClassifier, load
from sweet_jax.standalone.checks import MANIFEST, SCHEMA
from sweet_jax.system.checksums import write_checksums
from sweet_jax.system.files import write_bytes, write_folder, write_json
from sweet_jax.system.packages import install_extra
from sweet_jax.trees import flatten_paths

# The loader's criterion; it needs nothing but logits and temperatures.
CRITERION = "confidence"
_HERE = Path(__file__).parents[1] / "standalone"


class ExportError(ValueError):
    """The folder cannot be written, or something that export needs is missing."""


def export_folder(model: Path, out: Path, pytorch: bool = False) -> str:
    """Writes an exported folder, whole or not at all.

    Args:
        model: a model folder (`WORKDIR/model`).
        out: the folder to write.
        pytorch: whether it has a part for PyTorch, too.

    Returns:
        One line on what was written.

    Raises:
        ModelFolderError: `model` is no model folder, or damaged.
        ExportError: `out` is there already, or flatbuffers is not installed.
        ValueError: the model has no form in PyTorch (see `pytorch_export`).
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise ExportError(
            "export needs flatbuffers, which jax writes programs with:"
            f" {install_extra('export')}"
        )
    if out.exists():
        raise ExportError(f"{out} is there already: name another folder with --out")
    classifier = load(model)
    d, params = classifier.description, classifier.params
    with write_folder(out) as temporary:
        programs = _write_programs(classifier, temporary)
        # Contents alone: the folder may have been made read-only.
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
    # Part of a program, as it was of the run that chose the thresholds.
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
        # Numbers from here on are refused; types are 0 or 1 where a model reads them.
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
    """Returns names, shapes and types; an axis is a number or a text, as `length`."""
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
