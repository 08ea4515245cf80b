"""A tiny frozen encoder of any family with random rows, for tests of PAPA."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sweet_jax.analysis.papa.constants import AttentionSums
from sweet_jax.analysis.papa.frozen import Frozen
from sweet_jax.analysis.papa.layout import SlotRows
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.huggingface.safetensors import load_encoder

LENGTH = 12


def load_frozen(folder: Path, dtype=jnp.float32) -> Frozen:
    config = load_config(folder)
    loaded = load_encoder(folder, config, config.num_layers)
    return Frozen(
        make_encoder(config, config.num_layers, dtype),
        loaded.encoder,
        loaded.final_norm,
        config.num_heads,
        config.hidden_size,
    )


def make_rows(num_rows: int, seed: int = 0, length: int = LENGTH) -> SlotRows:
    """Returns random rows with padding before the last slot."""
    rng = np.random.default_rng(seed)
    slots = np.arange(length)
    mask = slots < rng.integers(3, length - 1, (num_rows, 1))
    mask[:, -1] = True
    ids = rng.integers(5, 30, mask.shape) * mask
    return SlotRows(
        token_ids=ids.astype(np.int32),
        type_ids=np.zeros(mask.shape, np.int32),
        mask=mask.astype(np.int32),
        labels=(np.arange(num_rows) % 2).astype(np.int32),
        row_ids=np.arange(num_rows),
    )


def make_random_constants(num_layers=4, num_heads=2, length=LENGTH, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((num_layers, num_heads, length, length)).astype(np.float32)


def make_random_sums(num_rows: int, seed: int = 0, length: int = 4) -> AttentionSums:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, num_rows + 1, (length, length))
    return AttentionSums(rng.random((2, 3, length, length)) * counts, counts, num_rows)


class NoStore:
    """Keeps no state of a training."""

    def save(self, step, state):
        """Drops it."""

    def restore_newest(self, make_target):
        """Finds none."""
        return None
