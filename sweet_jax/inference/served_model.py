"""The module that a model folder describes."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from sweet_jax.convert.hf_config import make_encoder
from sweet_jax.inference.model_folder import ModelDescription
from sweet_jax.models.multi_exit import MultiExitClassifier, join_models, split_model
from sweet_jax.settings import ExitSettings


def build_model(description: ModelDescription, config: Any) -> nn.Module:
    """Returns a MultiExitClassifier, or a MultiModelSet of the members.

    Args:
        description: of the model folder.
        config: of its encoder, as `load_config` returns it.
    """
    layers, dtype = description.exit_layers, jnp.dtype(description.dtype)
    model = MultiExitClassifier(
        encoder=make_encoder(config, layers[-1] + 1, dtype),
        exit_layers=layers,
        exit_numbers=tuple(range(len(layers))),
        num_classes=len(description.label_names),
        features=config.hidden_size,
        settings=ExitSettings(
            pooling=description.pooling,
            dropout=0.0,  # Never in use: a served model does not train.
            learn_to_exit=bool(description.lte_ranges),
        ),
        shared_pooler=description.shared_pooler,
        dtype=dtype,
    )
    return join_models(
        split_model(model, description.member_exits, description.separate_tables)
    )
