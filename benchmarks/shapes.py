"""Encoders and batches with published shapes and random values; needs no files."""

from typing import Any

import numpy as np

from sweet_jax.arrays import Batch


def make_bert_attributes(num_layers: int, width: int) -> dict[str, Any]:
    """Returns the config.json of a BERT with the usual ratios (64 per head)."""
    return {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
    }


def make_random_batch(rows: int, length: int, vocab_size: int) -> Batch:
    """Returns a batch without padding."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, vocab_size, (rows, length)).astype(np.int32)
    row = np.arange(rows, dtype=np.int32)
    return Batch(
        ids, ids * 0, np.ones_like(ids), row % 2, np.ones(rows, np.float32), row
    )
