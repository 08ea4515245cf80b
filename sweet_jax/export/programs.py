"""Exports segments as StableHLO programs, for any batch size, length and device.

A program maps (weights, state) to the changed entries of the state. Both are flat
dicts, so that programs run without this package's data structures: the first state is
`token_ids`, `type_ids` and `mask`, and every program adds `logits`.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export

from sweet_jax.arrays import Array, Batch, Params
from sweet_jax.engine.backend import Rows
from sweet_jax.engine.segments import SegmentFn, Shared, make_segment
from sweet_jax.models.multi_exit import MultiModelSet, find_segment
from sweet_jax.trees import flatten_paths, unflatten_paths

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# The fields of a batch that serving uses; labels and weights are for training and
# evaluation.
TOKENS = ("token_ids", "type_ids", "mask")
_UNREAD = ("labels", "weights", "row_ids")

Specs = dict[str, jax.ShapeDtypeStruct]


class Program(NamedTuple):
    """An exported segment.

    Attributes:
        exported: function of two dicts, with the keys of `weights` and `inputs`.
        weights: paths of the parameters that it reads, in the order of arguments.
        inputs: shapes and types of the state that it reads, in the order of arguments.
        outputs: shapes and types of the state that it changes, in the order of results.
    """

    exported: export.Exported
    weights: tuple[str, ...]
    inputs: Specs
    outputs: Specs


def export_programs(
    model: nn.Module,
    params: Params,
    exit_layers: tuple[int, ...],
    num_classes: int,
    max_length: int,
) -> list[Program]:
    """Returns the programs of all segments, in order.

    Args:
        model: a MultiExitClassifier or a MultiModelSet.
        params: parameters of the model; only their shapes are used.
        exit_layers: the layer each exit reads.
        num_classes: number of classes C.
        max_length: longest input in tokens. The program checks this bound; without it,
            longer inputs would run with positions that the model does not have.
    """
    batch, length = export.symbolic_shape(
        "batch, length", constraints=[f"length <= {max_length}"]
    )
    tokens: Any = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    row: Any = jax.ShapeDtypeStruct((batch,), jnp.int32)
    weight: Any = jax.ShapeDtypeStruct((batch,), jnp.float32)
    rows: Any = Batch(tokens, tokens, tokens, row, weight, row)
    shared: Any = None
    specs = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for path, leaf in flatten_paths(params).items()
    }
    programs = []
    for i in range(len(exit_layers)):
        run = make_segment(model, i)
        weights = {
            path: spec
            for path, spec in sorted(specs.items())
            if _is_read(path, i, exit_layers, isinstance(model, MultiModelSet))
        }
        inputs = dict(sorted(_flatten_state(rows, shared).items()))
        is_last = i == len(exit_layers) - 1
        program = _make_program(run, rows, shared, num_classes, is_last)
        # Keeps unused arguments, so that the lists of names match the arguments.
        jitted = jax.jit(program, keep_unused=True)
        with _without_source_paths():
            exported = export.export(jitted, platforms=PLATFORMS)(weights, inputs)
        results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
        outputs = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in results.items()
        }
        programs.append(Program(exported, tuple(weights), inputs, outputs))
        rows, shared, _ = jax.eval_shape(run, unflatten_paths(weights), rows, shared)
    return programs


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Removes the paths of this machine's source files from programs."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _make_program(
    run: SegmentFn,
    rows_spec: Rows,
    shared_spec: Shared,
    num_classes: int,
    is_last: bool,
) -> Any:
    """Returns a segment as a function of dicts; the last one returns only logits."""

    def program(
        weights: dict[str, Array], state: dict[str, Array]
    ) -> dict[str, jax.Array]:
        rows = jax.tree.map_with_path(
            lambda path, spec: (
                jnp.zeros(spec.shape, spec.dtype)
                if _name(path) in _UNREAD
                else state[_name(path)]
            ),
            rows_spec,
        )
        shared = jax.tree.map_with_path(
            lambda path, _: state[_name_shared(path)], shared_spec
        )
        rows, shared, answers = run(unflatten_paths(weights), rows, shared)
        after = {} if is_last else _flatten_state(rows, shared)
        # Entries that the segment does not change, the same tracer, are not results.
        changed = {name: x for name, x in after.items() if x is not state.get(name)}
        changed["logits"] = answers[:, :num_classes]
        if answers.shape[1] > num_classes:
            changed["lte"] = answers[:, num_classes]
        return changed

    return program


def _flatten_state(rows: Rows, shared: Shared) -> dict[str, Any]:
    """Returns the leaves by name, without those that serving does not use."""
    own = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(rows)}
    common = {
        _name_shared(path): leaf for path, leaf in jax.tree.leaves_with_path(shared)
    }
    return {name: x for name, x in (own | common).items() if name not in _UNREAD}


def _name(path: Any) -> str:
    """Returns `mask` for `batch/mask` and for `mask_BL`."""
    last = jax.tree_util.keystr(path[-1:], simple=True)
    return re.sub(r"_[A-Z]+$", "", last)


def _name_shared(path: Any) -> str:
    return "shared_" + jax.tree_util.keystr(path, simple=True, separator="_")


def _is_read(
    path: str, segment: int, exit_layers: tuple[int, ...], is_set: bool
) -> bool:
    """Whether a segment reads the parameter at `path`."""
    if is_set:
        return path.startswith(f"member_{segment}/")
    # All segments read the shared pooler (faithful_release).
    return path.startswith("exits/pooler/") or (
        find_segment(path, exit_layers) == segment
    )
