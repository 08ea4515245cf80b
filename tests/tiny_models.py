"""Models without a run: rows for them, and their folders with random weights."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import benchmarks.tiny_model
from sweet_jax.arrays import Batch
from sweet_jax.data.tokenize import load_tokenizer
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import MultiExitClassifier, split_model
from sweet_jax.serving.model_folder import save_model_folder
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.trees import flatten_paths, unflatten_paths

DESCRIPTION = dataclasses.replace(
    benchmarks.tiny_model.DESCRIPTION,
    method="sweet",
    label_names=("bad", "good"),
    exit_layers=(0, 2),
    max_length=16,
    buckets=(16,),
    bucket_rows=(8,),
    cost_fractions=(1 / 3, 1.0),
    separate_tables=True,
)


def make_padded_batch(seed: int) -> Batch:
    """Returns six rows of up to 9 tokens, the last of which only fills the shape."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(9)[None] < rng.integers(3, 10, (6, 1))).astype(np.int32)
    return Batch(
        token_ids=rng.integers(4, 30, (6, 9)).astype(np.int32) * mask,
        type_ids=np.zeros((6, 9), np.int32),
        mask=mask,
        labels=rng.integers(0, 3, 6).astype(np.int32),
        weights=np.array([1, 1, 1, 1, 1, 0], np.float32),
        row_ids=np.arange(6, dtype=np.int32),
    )


def write_model_folder(
    folder: Path, encoder: Path, scale: float = 0.3, **changes: Any
) -> dict[str, np.ndarray]:
    """Writes a model folder and returns its weights by path.

    Args:
        folder: to write.
        encoder: folder of the encoder.
        scale: standard deviation of the weights.
        **changes: fields of the description.
    """
    buckets = changes.get("buckets", DESCRIPTION.buckets)
    counts = {"bucket_rows": (8, *[0] * (len(buckets) - 1))}
    description = dataclasses.replace(DESCRIPTION, **(counts | changes))
    layers = description.exit_layers
    config = load_config(encoder)
    model = MultiExitClassifier(
        encoder=make_encoder(config, layers[-1] + 1, jnp.float32),
        exit_layers=layers,
        exit_numbers=tuple(range(len(layers))),
        num_classes=len(description.label_names),
        features=config.hidden_size,
        settings=ExitSettings(
            pooling=description.pooling,
            dropout=0.1,
            learn_to_exit=bool(description.lte_ranges),
        ),
        shared_pooler=description.shared_pooler,
    )
    members = description.member_exits
    parts = split_model(model, members, description.separate_tables)
    rng = np.random.default_rng(0)
    flat = {
        f"member_{i}/{path}" if len(parts) > 1 else path: rng.normal(
            0, scale, leaf.shape
        ).astype(np.float32)
        for i, part in enumerate(parts)
        for path, leaf in flatten_paths(compute_shapes(part)).items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_model_folder(
        folder,
        description,
        unflatten_paths(flat),
        encoder / "config.json",
        load_tokenizer(encoder, config.max_positions),
        benchmarks.tiny_model.make_calibration(description),
    )
    return flat
