"""Tables that the layers of an encoder share, and their copies per segment.

Every layer reads a shared table, so under `sweet` training one exit would change what
the others compute. There every segment has its own copy, equal at the start: copy i at
`encoder/shared_i/...`, read from the first layer of segment i on. Other methods have
one copy, `encoder/shared_0/...`, as in checkpoints.
"""

import re
from collections.abc import Sequence

import numpy as np
from jax import export

from sweet_jax.arrays import Params, Size
from sweet_jax.trees import flatten_paths

FIRST_COPY = "shared_0"


def compute_table_starts(exit_layers: Sequence[int]) -> tuple[int, ...]:
    """Returns the first layer of each segment, where its copy begins to be read."""
    return (0, *(layer + 1 for layer in exit_layers[:-1]))


def fix_length(length: Size, longest: int) -> int:
    """Returns the number of tokens that a table is spread over during tracing.

    This is the length or, if it is symbolic because the program is exported for all
    lengths, the longest one. Rows are then selected for the longest input, and shorter
    inputs read the middle of its distances.
    """
    return longest if export.is_symbolic_dim(length) else length


def copy_tables(encoder: Params, num_copies: int) -> Params:
    """Returns a checkpoint's encoder with `num_copies` equal copies of shared tables.

    An encoder without such tables is returned as it is.
    """
    if FIRST_COPY not in encoder:
        return encoder
    copies = {f"shared_{i}": encoder[FIRST_COPY] for i in range(num_copies)}
    return {**encoder, **copies}


def join_tables(encoder: Params) -> Params:
    """Returns an encoder with a single copy of shared tables, as checkpoints have.

    Raises:
        ValueError: the copies differ.
    """
    copies = [name for name in encoder if re.fullmatch(r"shared_\d+", name)]
    first = flatten_paths(encoder[FIRST_COPY]) if copies else {}
    for name in copies:
        for path, leaf in flatten_paths(encoder[name]).items():
            if not np.array_equal(leaf, first[path]):
                raise ValueError(
                    f"{name}/{path} differs from {FIRST_COPY}/{path}: segments have"
                    " trained tables of their own (method=sweet), and a Hugging Face"
                    " folder holds one for all layers; keep the run's model folder, or"
                    " train with method=early_exit or multi_model"
                )
    joined = {name: part for name, part in encoder.items() if name not in copies}
    return {**joined, FIRST_COPY: encoder[FIRST_COPY]} if copies else joined
