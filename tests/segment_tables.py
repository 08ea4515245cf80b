"""Tables that layers share, a copy for each segment: what runs do with them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

import sweet_jax
from sweet_jax.arrays import Batch, LogitBank, Params
from sweet_jax.data.sources import load_task
from sweet_jax.models.encoder import Encoder
from sweet_jax.runs import pipeline
from sweet_jax.settings.from_config import from_config_dict


def trace_layers(encoder: Encoder, batch: Batch) -> Callable[[Params], list[jax.Array]]:
    """Returns the encoder as parameters -> the states behind each of its layers."""

    @jax.jit
    def run(params: Params) -> list[jax.Array]:
        states = []
        carry: Any = encoder.apply({"params": params}, batch, False, method="embed")
        for start in range(encoder.num_layers):
            carry = encoder.apply(
                {"params": params}, carry, start, start + 1, False, method="run_layers"
            )
            states.append(carry["x_BLD"])
        return states

    return run


def check_trained_tables(
    config: dict[str, Any], encoder: Path, workdir: Path, tables: Mapping[str, str]
) -> None:
    """Trains by sweet; every segment's table has learned, apart, and is served.

    Args:
        config: of a tiny run.
        encoder: its folder.
        workdir: of the run.
        tables: our path below `shared_i` -> the checkpoint's tensor.
    """
    config["encoder"]["name"] = str(encoder)
    config["exits"]["layers"] = (0, 1)
    config["data"]["buckets"] = (16,)
    settings = from_config_dict(config)
    path, _ = pipeline.run(settings, workdir, quiet=True)
    params = load_file(path / "model" / "params.safetensors")
    start = load_file(encoder / "model.safetensors")
    for leaf, name in tables.items():
        first, second = (params[f"encoder/shared_{i}/{leaf}"] for i in range(2))
        assert (first != start[name]).any()
        assert (second != start[name]).any()
        assert (first != second).any()
    examples = load_task(settings.data).splits["test"]
    served = sweet_jax.load(path / "model").collect(examples)
    measured = LogitBank.load(path / "logits_test.npz")
    np.testing.assert_array_equal(served.row_ids, measured.row_ids)
    np.testing.assert_allclose(served.logits, measured.logits, rtol=0, atol=1e-5)
