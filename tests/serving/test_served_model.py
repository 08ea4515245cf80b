"""The shapes of a described model, found without tracing all of it."""

import dataclasses

import pytest
from tiny_configs import TINY_CONFIGS
from tiny_models import DESCRIPTION

from sweet_jax.huggingface.config import load_config
from sweet_jax.models.init import compute_shapes
from sweet_jax.serving.served_model import build_model, compute_served_shapes
from sweet_jax.trees import flatten_paths


@pytest.mark.parametrize("family", TINY_CONFIGS)
@pytest.mark.parametrize(
    "changes",
    [
        {"lte_ranges": ((0.0, 1.0),) * 3},
        {"member_exits": ((0,), (1,), (2,)), "separate_tables": False},
        {"separate_tables": False, "shared_pooler": True, "pooling": "cls"},
    ],
)
def test_shapes_are_those_of_the_whole_model(make_tiny_encoder, family, changes):
    description = dataclasses.replace(
        DESCRIPTION,
        exit_layers=(0, 1, 3),
        temperatures=(1.0,) * 3,
        cost_fractions=(0.25, 0.5, 1.0),
        **({"member_exits": ((0, 1, 2),)} | changes),
    )
    config = load_config(make_tiny_encoder(family))
    whole = flatten_paths(compute_shapes(build_model(description, config)))
    assert compute_served_shapes(description, config) == {
        path: leaf.shape for path, leaf in whole.items()
    }


def test_a_model_of_one_layer(tiny_encoder):
    description = dataclasses.replace(
        DESCRIPTION,
        exit_layers=(0,),
        member_exits=((0,),),
        temperatures=(1.0,),
        cost_fractions=(1.0,),
    )
    config = load_config(tiny_encoder)
    whole = flatten_paths(compute_shapes(build_model(description, config)))
    assert compute_served_shapes(description, config).keys() == whole.keys()
