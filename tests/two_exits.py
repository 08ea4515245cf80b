"""A BERT of two exits on its first two layers, for what needs attention."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sweet_jax.arrays import Params
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.settings.fields import ExitSettings, OptimSettings

EXIT_LAYERS = (0, 1)
# An optimiser whose steps are easy to compute by hand.
CONSTANT = OptimSettings(
    encoder_learning_rate=0.01, exit_learning_rate=0.1, schedule="constant",
    warmup_percent=0.0, weight_decay=0.01, epsilon_mode="after_correction",
    clip_scope="global",
)  # fmt: skip


def make_two_exit_model(encoder: Path) -> MultiExitClassifier:
    """Returns the model on the encoder of a folder, without dropout."""
    config = dataclasses.replace(
        load_config(encoder), hidden_dropout=0.0, attention_dropout=0.0
    )
    return MultiExitClassifier(
        encoder=make_encoder(config, 2, jnp.float32),
        exit_layers=EXIT_LAYERS,
        exit_numbers=(0, 1),
        num_classes=2,
        features=config.hidden_size,
        settings=ExitSettings(pooling="mean", dropout=0.0),
    )


def make_random_params(model: MultiExitClassifier) -> Params:
    """Returns parameters of random values, on the host."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32),
        compute_shapes(model),
    )
