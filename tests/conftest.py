"""A tiny real encoder folder and a tiny real task, for tests of the whole pipeline."""

import functools
import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from main_command import MainCommand
from tiny_configs import TINY_BERT, TINY_CONFIGS

from benchmarks.tiny_model import write_tiny_model, write_word_tokenizer
from sweet_jax.convert.hf_config import load_config, make_encoder
from sweet_jax.convert.name_maps import NAME_MAPS
from sweet_jax.convert.safetensors import export_encoder
from sweet_jax.models.initial import make_example_batch
from sweet_jax.resolve import from_config_dict
from sweet_jax.settings import Settings

# Tracing makes objects by the million that live for long: with Python's own limits a
# tenth of the suite's time goes into looking for cycles among them.
gc.set_threshold(200_000, 20, 100)

GOOD = ["good", "fine", "great", "lovely", "superb", "warm"]
BAD = ["bad", "poor", "awful", "dull", "grim", "cold"]
NEUTRAL = ["the", "a", "film", "plot", "cast", "and", "with", "very", "scene", "it"]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def pytest_collection_finish() -> None:
    """Leaves what the imports made out of every later collection."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT."""
    return write_tiny_encoder(tmp_path_factory.mktemp("tiny_encoder"), TINY_BERT)


@pytest.fixture(scope="session")
def tiny_mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an MPNet, whose layers share a table."""
    folder = tmp_path_factory.mktemp("tiny_mpnet")
    return write_tiny_encoder(folder, TINY_CONFIGS["mpnet"])


@pytest.fixture(scope="session")
def tiny_modernbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ModernBERT, whose final norm every exit owns."""
    folder = tmp_path_factory.mktemp("tiny_modernbert")
    return write_tiny_encoder(folder, TINY_CONFIGS["modernbert"])


@pytest.fixture(scope="session")
def tiny_deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a DeBERTa-v2: a normed table, a convolution, no pooler."""
    folder = tmp_path_factory.mktemp("tiny_deberta")
    return write_tiny_encoder(folder, TINY_CONFIGS["deberta-v2"])


@pytest.fixture(scope="session")
def make_tiny_encoder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """Returns family -> the folder of a tiny encoder, written once."""

    @functools.cache
    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp(f"tiny_{family}")
        return write_tiny_encoder(folder, TINY_CONFIGS[family])

    return make


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


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of compiled programs and tokens for all tests, never the user's."""
    root = tmp_path_factory.getbasetemp()
    # Under xdist every worker has a directory of its own below the common one.
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"


@pytest.fixture(scope="session")
def command(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> Iterator[MainCommand]:
    """The main command without a network."""
    command = MainCommand(tmp_path_factory.mktemp("command"), shared_cache)
    yield command
    command.close()


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and test.jsonl of short sentences."""
    folder = tmp_path_factory.mktemp("tiny_task")
    for name, count, seed in (("train", 120, 1), ("test", 50, 2)):
        lines = (json.dumps(row) for row in make_sentences(count, seed))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of 2 layers, for single texts."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny_model") / "model")


@pytest.fixture
def tiny_config(tiny_encoder: Path, tiny_task: Path) -> dict[str, Any]:
    """Settings, as a nested dict, of a run that takes seconds."""
    return {
        "method": "sweet",
        "encoder": {"name": str(tiny_encoder)},
        "exits": {"layers": (0, 1, 3)},
        "data": {
            "task": "file",
            "train_file": str(tiny_task / "train.jsonl"),
            "test_file": str(tiny_task / "test.jsonl"),
            "max_train_examples": 40,
            "calibration_examples": 24,
            "max_length": 16,
            "buckets": (8, 16),
        },
        "train": {"batch_size": 8, "num_epochs": 2, "checkpoint_every_steps": 3},
        "evaluate": {"batch_size": 16, "measure_costs": False},
    }


@pytest.fixture
def tiny_settings(tiny_config: dict[str, Any]) -> Settings:
    """The same as settings."""
    return from_config_dict(tiny_config)
