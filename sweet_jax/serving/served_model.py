"""Builds the model that a model folder describes, and computes its shapes."""

import dataclasses
import re
from typing import Any

from flax import linen as nn

from sweet_jax.huggingface.build_models import ModelSpec, build_models
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import join_models
from sweet_jax.models.shared_tables import compute_table_starts
from sweet_jax.serving.description import ModelDescription
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.trees import flatten_paths


def build_model(description: ModelDescription, config: Any) -> nn.Module:
    """Returns a MultiExitClassifier, or a MultiModelSet of the members.

    Args:
        description: description of the model.
        config: config of its encoder, from `load_config`.
    """
    spec = ModelSpec(
        exits=ExitSettings(
            layers=description.exit_layers,
            pooling=description.pooling,
            dropout=0.0,  # Not used: a served model does not train.
            learn_to_exit=bool(description.lte_ranges),
        ),
        member_exits=description.member_exits,
        num_classes=len(description.label_names),
        shared_pooler=description.shared_pooler,
        separate_tables=description.separate_tables,
        dtype=description.dtype,
    )
    return join_models(build_models(config, spec))


def compute_served_shapes(
    description: ModelDescription, config: Any
) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of all parameters of the described model.

    The result equals `compute_shapes(build_model(...))`, but only a model of at most
    two layers and one exit is traced: tracing all layers would take longer than reading
    the weights. Deeper layers have the shapes of the second (the first may differ in
    norms).

    Args:
        description: description of the model.
        config: config of its encoder, from `load_config`.
    """
    last = min(description.exit_layers[-1], 1)
    small = dataclasses.replace(
        description,
        exit_layers=(last,),
        member_exits=((0,),),
        temperatures=(1.0,),
        cost_fractions=(1.0,),
        lte_ranges=description.lte_ranges[:1],
    )
    flat = flatten_paths(compute_shapes(build_model(small, config)))
    shapes = {}
    members = description.member_exits
    for i, exits in enumerate(members):
        prefix = f"member_{i}/" if len(members) > 1 else ""
        layers = tuple(description.exit_layers[number] for number in exits)
        starts = compute_table_starts(layers) if description.separate_tables else (0,)
        for path, leaf in flat.items():
            for name in _repeat(path, layers[-1], last, exits, len(starts)):
                shapes[f"{prefix}{name}"] = leaf.shape
    return shapes


def _repeat(
    path: str, last_layer: int, last: int, exits: tuple[int, ...], num_tables: int
) -> list[str]:
    """Returns the whole model's paths that correspond to one of the small model."""
    repeated = {
        f"encoder/layer_{last}/": range(last, last_layer + 1),
        "exits/exit_0/": exits,
        "encoder/shared_0/": range(num_tables),
    }
    for start, numbers in repeated.items():
        if path.startswith(start):
            stem = start[: start.rindex("_") + 1]
            return [f"{stem}{n}/{path.removeprefix(start)}" for n in numbers]
    layer = re.match(r"encoder/layer_(\d+)/", path)
    # With several models, some may end before this layer.
    return [path] if layer is None or int(layer[1]) <= last_layer else []
