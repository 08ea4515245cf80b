"""A tiny real encoder folder and a tiny task, written where one says."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.tiny_model import write_word_tokenizer
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.safetensors import export_encoder
from sweet_jax.models.init import make_example_batch

GOOD = ["good", "fine", "great", "lovely", "superb", "warm"]
BAD = ["bad", "poor", "awful", "dull", "grim", "cold"]
NEUTRAL = ["the", "a", "film", "plot", "cast", "and", "with", "very", "scene", "it"]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_tiny_encoder(folder: Path, attributes: dict[str, Any]) -> Path:
    """Writes a folder of 4 layers, width 16, and a word-level tokenizer.

    A pooler and a final norm lie beside them in families that have one.
    """
    (folder / "config.json").write_text(json.dumps(attributes), encoding="utf-8")
    config = load_config(folder)
    encoder = make_encoder(config, 4, jnp.float32)
    params = encoder.init(jax.random.key(0), make_example_batch())["params"]
    pooler, final_norm = None, None
    if NAME_MAPS[config.family].has_pooler:
        kernel = np.random.default_rng(0).normal(0, 0.2, (16, 16)).astype(np.float32)
        pooler = {"kernel": kernel, "bias": np.zeros(16, np.float32)}
    norm: Any = encoder.make_final_norm()
    if norm is not None:
        final_norm = norm.init(jax.random.key(1), np.zeros((1, 1, 16)))["params"]
    export_encoder(params, pooler, config, attributes, folder, final_norm)
    write_word_tokenizer(folder, _SPECIAL + GOOD + BAD + NEUTRAL)
    return folder


def make_sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """Returns rows whose label is told by one word among neutral ones."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        words = list(rng.choice(NEUTRAL, rng.integers(1, 12)))
        words.insert(
            int(rng.integers(len(words) + 1)), str(rng.choice(GOOD if i % 2 else BAD))
        )
        rows.append({"sentence": " ".join(words), "label": ("no", "yes")[i % 2]})
    return rows


def write_tiny_task(folder: Path) -> Path:
    """Writes train.jsonl and test.jsonl of short sentences; returns the folder."""
    for name, count, seed in (("train", 120, 1), ("test", 50, 2)):
        lines = (json.dumps(row) for row in make_sentences(count, seed))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
