"""Measures a layer with none, half and all of its heads constant.

All contenders run in every repeat, so that noise of the machine affects them equally.
CPU seconds are those of all threads, which other programs disturb less.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from measuring import print_header, print_row
from shapes import make_bert_attributes, make_random_batch

from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.constant_attention import place_constants

_REPEATS = 25
_HEADS = 12
# width, (rows, length)
_CASES = [(384, (32, 64)), (384, (32, 128)), (768, (16, 128))]


@dataclasses.dataclass(frozen=True)
class Contender:
    """A compiled layer.

    Attributes:
        gflop: XLA's count of its operations.
        run: runs it once.
    """

    gflop: float
    run: Callable[[], Any]


def measure_constant_attention() -> None:
    """Prints a row per shape and number of constant heads."""
    print_header(
        "layer, rows x tokens",
        "constant heads",
        "GFLOP",
        "of all dynamic",
        "CPU ms",
        "of all dynamic",
    )
    for width, (rows, length) in _CASES:
        attributes = make_bert_attributes(1, width) | {"num_attention_heads": _HEADS}
        # Every second head, so that no half is contiguous.
        choices = ((), range(0, _HEADS, 2), range(_HEADS))
        contenders = [make_layer(attributes, heads, rows, length) for heads in choices]
        seconds = time_cpu_in_turns([contender.run for contender in contenders])
        for heads, contender, spent in zip(choices, contenders, seconds, strict=True):
            print_row(
                f"width {width}, {rows} x {length}",
                f"{len(heads)} of {_HEADS}",
                f"{contender.gflop:.2f}",
                f"{contender.gflop / contenders[0].gflop:.3f}",
                f"{1e3 * spent:.1f}",
                f"{spent / seconds[0]:.3f}",
            )


def make_layer(
    attributes: dict[str, Any], heads: Any, rows: int, length: int
) -> Contender:
    """Returns one layer with these heads constant, compiled for a shape."""
    encoder = make_encoder(parse_config(attributes), 1, jnp.float32)
    encoder = encoder.clone(attention_fns=place_constants([heads], length))
    batch = make_random_batch(rows, length, attributes["vocab_size"])
    params = encoder.init(jax.random.key(0), batch)
    x_BLD = jax.random.normal(
        jax.random.key(1), (rows, length, attributes["hidden_size"])
    )
    carry = {"x_BLD": x_BLD, "mask_BL": jnp.asarray(batch.mask), "shared": ()}

    def run(params: Any, carry: dict[str, Any]) -> jax.Array:
        out: Any = encoder.apply(params, carry, 0, 1, False, method="run_layers")
        return out["x_BLD"]

    program = jax.jit(run).lower(params, carry).compile()
    cost: Any = program.cost_analysis()
    return Contender(cost["flops"] / 1e9, lambda: program(params, carry))


def time_cpu_in_turns(calls: list[Callable[[], Any]]) -> list[float]:
    """Returns each call's median CPU seconds."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(_REPEATS + 2):
        for found, call in zip(seconds, calls, strict=True):
            start = time.process_time()
            jax.block_until_ready(call())
            # The first calls warm up caches.
            if repeat >= 2:
                found.append(time.process_time() - start)
    return [statistics.median(found) for found in seconds]
