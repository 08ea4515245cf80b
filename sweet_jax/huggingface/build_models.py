"""Builds the models (encoder and exits) of a run or of a model folder."""

import dataclasses

import jax.numpy as jnp

from sweet_jax.huggingface.config import make_encoder
from sweet_jax.models.encoder import EncoderConfig
from sweet_jax.models.multi_exit import MultiExitClassifier, split_model
from sweet_jax.settings.fields import ExitSettings


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Everything that defines the models except the encoder's config.

    Attributes:
        exits: the exits' settings; `layers` is filled in.
        member_exits: the numbers of the exits that each model owns.
        num_classes: number of classes C.
        shared_pooler: one pooler for all exits (faithful_release).
        separate_tables: each segment has its own copy of tables that layers share.
        dtype: computation type.
        remat: recompute each layer's activations in the backward pass.
    """

    exits: ExitSettings
    member_exits: tuple[tuple[int, ...], ...]
    num_classes: int
    shared_pooler: bool
    separate_tables: bool
    dtype: str
    remat: bool = False


def build_models(
    config: EncoderConfig, spec: ModelSpec
) -> tuple[MultiExitClassifier, ...]:
    """Returns the models in order of depth; no parameters are made.

    Args:
        config: the encoder's config, from `load_config`.
        spec: everything else.

    Raises:
        ValueError: the encoder has too few layers for the last exit.
    """
    layers, dtype = spec.exits.layers, jnp.dtype(spec.dtype)
    model = MultiExitClassifier(
        encoder=make_encoder(config, layers[-1] + 1, dtype, spec.remat),
        exit_layers=layers,
        exit_numbers=tuple(range(len(layers))),
        num_classes=spec.num_classes,
        features=config.hidden_size,
        settings=spec.exits,
        shared_pooler=spec.shared_pooler,
        dtype=dtype,
        init_scale=config.initializer_range,
    )
    return split_model(model, spec.member_exits, spec.separate_tables)
