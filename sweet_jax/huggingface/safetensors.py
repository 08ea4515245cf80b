"""Loads encoders from Hugging Face safetensors and exports them, strictly.

Missing, extra and misshapen tensors are errors. Loading never unpickles and never runs
code from a folder.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from sweet_jax.arrays import Batch, Params
from sweet_jax.huggingface.config import CONFIG_FILE, make_encoder
from sweet_jax.huggingface.families import FAMILIES
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.rules import TRANSFORMS, NameMap
from sweet_jax.huggingface.weight_files import (
    SINGLE_FILE,
    compute_file_digest,
    find_weight_files,
    open_weights,
)
from sweet_jax.models.encoder import EncoderConfig
from sweet_jax.models.shared_tables import join_tables
from sweet_jax.system import files
from sweet_jax.trees import flatten_paths, unflatten_paths

# In every family, all layers after the second have the shapes of the second.
_DIFFERENT_LAYERS = 2
FLOAT_TYPES = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class LoadedEncoder:
    """The parameters of an encoder's folder.

    Attributes:
        encoder: float32 parameters under the encoder's own paths.
        pooler: `{"kernel": [D, D], "bias": [D]}`, or None.
        final_norm: `{"scale": [D]}`, the norm after the last layer; None in families
            whose layers end in a norm.
        ignored: tensors that are not part of the encoder, without buffers, which follow
            from the config.
        digest: 16 hex digits of the weight files' bytes.
    """

    encoder: Params
    pooler: Params | None
    final_norm: Params | None
    ignored: tuple[str, ...]
    digest: str


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The tensor of a parameter: its file, Hugging Face's name, and the transform."""

    file: Path
    name: str
    transform: str


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The tensors of a folder, sorted by how they would be loaded.

    Attributes:
        wanted: our path -> tensor.
        deeper: tensors of layers deeper than the truncated encoder.
        ignored: tensors that are not part of the encoder.
        missing: Hugging Face names that the encoder needs but no file has.
        extra: tensors that the table does not have, or duplicates.
        wrong: descriptions of shapes and types that contradict the config.
        prefix: the common prefix before known names in most extra tensors, or empty.
    """

    wanted: dict[str, Tensor]
    deeper: tuple[str, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    wrong: tuple[str, ...]
    prefix: str = ""

    def check(self, folder: Path) -> None:
        """Raises ValueError, in one line, unless the folder fits exactly."""
        problems = []
        if self.prefix:
            problems.append(
                f"the names of its tensors begin with {files.show(self.prefix[:80])!r}:"
                " save the state_dict of the encoder alone, not of the model that holds"
                " it"
            )
        if self.missing:
            problems.append(f"missing tensors: {files.show_names(self.missing)}")
        if self.extra:
            problems.append(f"extra tensors: {files.show_names(self.extra)}")
        if self.wrong:
            more = len(self.wrong) - 3
            tail = f" and {more} more" if more > 0 else ""
            problems.append(
                f"tensors that contradict {CONFIG_FILE}: "
                f"{'; '.join(self.wrong[:3])}{tail}"
            )
        if problems:
            raise ValueError(f"{folder}: {' | '.join(problems)}")


def load_encoder(folder: Path, config: EncoderConfig, num_layers: int) -> LoadedEncoder:
    """Reads embeddings, the first `num_layers` layers, final norm and pooler.

    Args:
        folder: has model.safetensors, or shards with their index.
        config: the config of the same folder.
        num_layers: the number of layers to read; deeper ones are not read.

    Raises:
        ValueError: there are no safetensors, a file is damaged, tensors are missing or
            extra (both are listed), shapes contradict the config (the first three are
            listed), or weights are NaN or infinite.
    """
    inventory = take_inventory(folder, config, num_layers)
    inventory.check(folder)
    by_file: dict[Path, list[str]] = {}
    for path, tensor in inventory.wanted.items():
        by_file.setdefault(tensor.file, []).append(path)
    flat: dict[str, np.ndarray] = {}
    for file, paths in by_file.items():
        with open_weights(file) as tensors:
            for path in paths:
                tensor = inventory.wanted[path]
                to_ours, _ = TRANSFORMS[tensor.transform]
                # numpy has no bfloat16; importing jax has added it.
                array = to_ours(tensors.get_tensor(tensor.name))
                with np.errstate(over="ignore"):  # `_check_finite` reports overflow.
                    flat[path] = np.ascontiguousarray(array, dtype=np.float32)
                _check_finite(flat[path], tensor)
    tree = unflatten_paths({path: flat[path] for path in inventory.wanted})
    pooler, final_norm = tree.pop("pooler", None), tree.pop("final_norm", None)
    digest = compute_file_digest(find_weight_files(folder))
    name_map = NAME_MAPS[config.family]
    ignored = tuple(
        name
        for name in inventory.ignored
        if not name_map.is_buffer(name_map.rename(name))
    )
    return LoadedEncoder(tree, pooler, final_norm, ignored, digest)


def take_inventory(folder: Path, config: EncoderConfig, num_layers: int) -> Inventory:
    """Sorts the folder's tensors by name and shape; no weights are read.

    Raises:
        ValueError: there are no safetensors, or a file is damaged.
    """
    name_map = NAME_MAPS[config.family]
    shapes = compute_shapes(config, num_layers)
    wanted: dict[str, Tensor] = {}
    deeper, ignored, extra, wrong = [], [], [], []
    for file in find_weight_files(folder):
        with open_weights(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it has no iterator)
                current = name_map.rename(name)
                row = name_map.to_ours(current)
                if row is None or row[0] not in shapes:
                    if row and _is_deeper(row[0], num_layers, config.num_layers):
                        deeper.append(name)
                    else:
                        known = name_map.is_ignored(current)
                        (ignored if known else extra).append(name)
                    continue
                path, transform = row
                if path in wanted:
                    extra.append(f"{name} (beside {wanted[path].name[:80]})")
                    continue
                wanted[path] = Tensor(file, name, transform)
                view = tensors.get_slice(name)
                shape = tuple(view.get_shape())
                _, to_theirs = TRANSFORMS[transform]
                # broadcast_to makes an array of the expected shape without memory.
                expected = to_theirs(np.broadcast_to(0.0, shapes[path])).shape
                if shape != expected:
                    wrong.append(f"{files.show(name)} is {shape}, expected {expected}")
                if view.get_dtype() not in FLOAT_TYPES:
                    wrong.append(
                        f"{files.show(name)} is {view.get_dtype()}, expected floats"
                        " (quantised weights are not read: take the original ones)"
                    )
    missing = [path for path in shapes if path not in wanted]
    # A checkpoint may have no pooler, but a part of a pooler is an error.
    if not any(path.startswith("pooler/") for path in wanted):
        missing = [path for path in missing if not path.startswith("pooler/")]
    return Inventory(
        # In the encoder's order, not that of the files.
        wanted={path: wanted[path] for path in shapes if path in wanted},
        deeper=tuple(deeper),
        ignored=tuple(ignored),
        missing=tuple(_to_theirs(config, path)[0] for path in missing),
        extra=tuple(extra),
        wrong=tuple(wrong),
        prefix=_find_prefix(name_map, extra) if missing else "",
    )


def export_encoder(
    params: Params,
    pooler: Params | None,
    config: EncoderConfig,
    source_config_json: Mapping[str, Any],
    out: Path,
    final_norm: Params | None = None,
) -> None:
    """Writes an encoder as a folder that Hugging Face's PyTorch classes load.

    Args:
        params: the encoder's parameters, with as many layers as are to be written; the
            copies of shared tables must be equal.
        pooler: `{"kernel", "bias"}`, or None: the folder then has no pooler.
        config: the encoder's config.
        source_config_json: attributes of the config.json that the encoder was loaded
            with; only the depth is changed.
        out: the folder, created if missing. The caller writes the tokenizer files.
        final_norm: the norm after the last layer, in families that have one; for a
            model with exits, the norm of one exit.

    Raises:
        ValueError: a parameter is not in the table or has another shape, or the
            segments' copies of shared tables differ.
    """
    params = join_tables(params)
    behind = {"final_norm": final_norm, "pooler": pooler}
    behind = {name: part for name, part in behind.items() if part is not None}
    flat = flatten_paths({**params, **behind})
    num_layers = sum(name.startswith("layer_") for name in params)
    shapes = compute_shapes(config, num_layers)
    if pooler is None:
        shapes = {p: s for p, s in shapes.items() if not p.startswith("pooler/")}
    if {path: tuple(leaf.shape) for path, leaf in flat.items()} != shapes:
        differing = sorted(
            {(p, tuple(leaf.shape)) for p, leaf in flat.items()} ^ {*shapes.items()}
        )
        raise ValueError(f"parameters do not fit their config: {differing[:3]}")
    tensors = {}
    for path, leaf in flat.items():
        name, transform = _to_theirs(config, path)
        _, to_theirs = TRANSFORMS[transform]
        # safetensors writes the buffer as it is: a transposed view must be copied.
        tensors[name] = np.ascontiguousarray(to_theirs(np.asarray(leaf, np.float32)))
    attributes = {**source_config_json, "num_hidden_layers": num_layers}
    for name in FAMILIES[config.family].layer_lists & attributes.keys():
        attributes[name] = attributes[name][:num_layers]
    # The folder's own code is not exported: the encoder was read without it.
    attributes.pop("auto_map", None)
    out.mkdir(parents=True, exist_ok=True)
    with files.write_whole(out / SINGLE_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    files.write_json(out / CONFIG_FILE, dict(sorted(attributes.items())))


def compute_shapes(
    config: EncoderConfig, num_layers: int
) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of all parameters of a checkpoint, without memory.

    These are the encoder's parameters, and `final_norm/...` and `pooler/...` if the
    family has them.
    """
    ids = jnp.zeros((1, 1), jnp.int32)
    row = jnp.zeros((1,), jnp.int32)
    batch = Batch(ids, ids, ids, row, jnp.zeros((1,)), row)
    # Tracing a thousand layers would take minutes.
    traced = min(num_layers, _DIFFERENT_LAYERS)
    encoder = make_encoder(config, traced, jnp.float32)
    key, size = jax.random.key(0), config.hidden_size
    tree: Params = {}
    for name, part in jax.eval_shape(encoder.init, key, batch)["params"].items():
        tree[name] = part
        if name == f"layer_{traced - 1}":
            tree |= {f"layer_{i}": part for i in range(traced, num_layers)}
    if (norm := encoder.make_final_norm()) is not None:
        states = jnp.zeros((1, 1, size))
        tree["final_norm"] = jax.eval_shape(norm.init, key, states)["params"]
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten_paths(tree).items()}
    if not NAME_MAPS[config.family].has_pooler:
        return shapes
    return shapes | {"pooler/kernel": (size, size), "pooler/bias": (size,)}


def _check_finite(array: np.ndarray, tensor: Tensor) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    raise ValueError(
        f"{tensor.file}: {files.show(tensor.name)} has {array.size - finite.sum()} of"
        f" {array.size} weights that are NaN or infinite: the training that saved this"
        " checkpoint diverged, or the file is damaged: take an earlier checkpoint, or"
        " download it again"
    )


def _find_prefix(name_map: NameMap, extra: Sequence[str]) -> str:
    """Returns the common prefix before known names in most extra tensors, or ""."""
    prefixes = collections.Counter(map(name_map.find_prefix, extra[:1000]))
    del prefixes[None]
    prefix, count = next(iter(prefixes.most_common(1)), ("", 0))
    return str(prefix) if 2 * count > len(extra[:1000]) else ""


def _is_deeper(path: str, num_layers: int, checkpoint_layers: int) -> bool:
    match = re.match(r"layer_(\d+)/", path)
    return match is not None and num_layers <= int(match[1]) < checkpoint_layers


def _to_theirs(config: EncoderConfig, path: str) -> tuple[str, str]:
    row = NAME_MAPS[config.family].to_theirs(path)
    if row is None:
        raise ValueError(f"parameter {path} has no row in the table of {config.family}")
    return row
