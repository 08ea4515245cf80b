"""The models of an encoder's config.json with exits: for a run, and for serving."""

import dataclasses

import jax.numpy as jnp

from sweet_jax.huggingface.config import make_encoder
from sweet_jax.models.encoder import EncoderConfig
from sweet_jax.models.multi_exit import MultiExitClassifier, split_model
from sweet_jax.settings.fields import ExitSettings


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What models are beside their encoder.

    Attributes:
        exits: where the exits are, and what they read; `layers` is filled in.
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
    """Returns the models in order of depth; no parameter is made.

    Args:
        config: of the encoder, as `load_config` returns it.
        spec: the rest.

    Raises:
        ValueError: the encoder has fewer layers than the last exit reads.
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
