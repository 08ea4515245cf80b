"""Parameter trees by path: "/"-joined names, masks by regex, strict merge."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sweet_jax.arrays import Params


def flatten_paths(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns `{"encoder/layer_0/.../kernel": leaf}` in the tree's own order."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten_paths(value, f"{path}/"))
        else:
            flat[path] = value
    return flat


def unflatten_paths(flat: Mapping[str, Any]) -> Params:
    """Undoes `flatten_paths`."""
    tree: Params = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def map_paths(label_fn: Callable[[str], Any], tree: Mapping[str, Any]) -> Params:
    """Returns a tree of the same structure with `label_fn(path)` at every leaf."""
    return unflatten_paths({path: label_fn(path) for path in flatten_paths(tree)})


def make_mask(tree: Mapping[str, Any], patterns: Sequence[str]) -> Params:
    """Returns a tree of bools: True where any pattern fully matches the leaf's path."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return map_paths(lambda path: any(p.fullmatch(path) for p in compiled), tree)


def merge_strict(initial: Mapping[str, Any], loaded: Mapping[str, Any]) -> Params:
    """Returns `loaded` in the structure of `initial`; their leaves must correspond.

    Raises:
        ValueError: leaves are missing, extra or of another shape; all are listed.
    """
    want, have = flatten_paths(initial), flatten_paths(loaded)
    problems = []
    if missing := sorted(want.keys() - have.keys()):
        problems.append(f"missing: {', '.join(missing)}")
    if extra := sorted(have.keys() - want.keys()):
        problems.append(f"extra: {', '.join(extra)}")
    wrong = [
        f"{path} is {tuple(np.shape(have[path]))}, expected {tuple(leaf.shape)}"
        for path, leaf in want.items()
        if path in have and np.shape(have[path]) != tuple(leaf.shape)
    ]
    if wrong:
        problems.append(f"shapes: {'; '.join(wrong)}")
    if problems:
        raise ValueError(f"parameters do not fit: {' | '.join(problems)}")
    return unflatten_paths({path: have[path] for path in want})


def count_parameters(tree: Any) -> int:
    """Returns the number of scalars in the tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
