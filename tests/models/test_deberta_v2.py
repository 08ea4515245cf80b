"""DeBERTa v2 and v3: what they have that v1 has not."""

import jax
import jax.numpy as jnp
from tiny_configs import TINY_CONFIGS

from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.init import make_example_batch
from sweet_jax.trees import flatten_paths


def test_only_layer_0_is_convolved():
    config = parse_config(TINY_CONFIGS["deberta-v2"])
    encoder = make_encoder(config, 3, jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), make_example_batch())
    paths = [p for p in flatten_paths(variables["params"]) if "convolution" in p]
    parts = ("conv/bias", "conv/kernel", "norm/bias", "norm/scale")
    assert sorted(paths) == [f"layer_0/convolution/{part}" for part in parts]
