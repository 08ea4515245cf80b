"""Compares the encoder's forward pass with PyTorch: same weights, same process.

Needs torch (the `torch` extra). All contenders run in every repeat, so that noise of
the machine affects them equally.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import print_header, print_row
from shapes import make_bert_attributes, make_random_batch

from sweet_jax.arrays import Batch
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.huggingface.safetensors import export_encoder
from sweet_jax.models.attention import compute_context, compute_scores
from sweet_jax.models.init import make_example_batch
from sweet_jax.models.layers import ACTIVATIONS
from sweet_jax.models.masked_softmax import compute_masked_softmax

_REPEATS = 9
# (layers, width), (rows, length)
_CASES = [
    ((6, 384), (16, 128)),
    ((6, 384), (1, 32)),
    ((12, 768), (16, 128)),
    ((12, 768), (1, 32)),
]


def measure_forward() -> None:
    """Prints one row per shape: milliseconds of each contender, and ratios."""
    print_header(
        "BERT forward, float32",
        "sweet_jax ms",
        "PyTorch eager ms",
        "torch.compile ms",
        "eager / ours",
        "compile / ours",
        "largest difference",
    )
    for (num_layers, width), (rows, length) in _CASES:
        attributes = make_bert_attributes(num_layers, width)
        batch = make_random_batch(rows, length, attributes["vocab_size"])
        ours, eager, compiled = make_contenders(attributes, batch)
        contenders = {"ours": ours, "eager": eager, "compiled": compiled}
        states = {name: np.asarray(call()) for name, call in contenders.items()}
        seconds = time_in_turns(contenders)
        difference = max(np.abs(states["ours"] - s).max() for s in states.values())
        print_row(
            f"{num_layers} x {width}, {rows} x {length}",
            *(f"{1e3 * s:.1f}" for s in seconds.values()),
            f"{seconds['eager'] / seconds['ours']:.2f}",
            f"{seconds['compiled'] / seconds['ours']:.2f}",
            f"{difference:.0e}",
        )
    print()
    measure_pieces()


def measure_pieces(rows: int = 16, length: int = 128, width: int = 768) -> None:
    """Prints milliseconds of the parts of a layer, in jax and in PyTorch."""
    import torch
    from torch.nn import functional

    print_header(
        f"part of a layer, {rows} x {length}, width {width}",
        "sweet_jax ms",
        "PyTorch eager ms",
    )
    rng = np.random.default_rng(0)

    def make(*shape: int) -> tuple[jax.Array, Any]:
        array = rng.normal(size=shape).astype(np.float32)
        return jnp.asarray(array), torch.from_numpy(array)

    x, theirs_x = make(rows * length, width)
    w, theirs_w = make(width, 4 * width)
    h, theirs_h = make(rows * length, 4 * width)
    q, theirs_q = make(rows, length, width // 64, 64)
    theirs_q, theirs_w = theirs_q.transpose(1, 2), theirs_w.T.contiguous()
    mask = jnp.ones((rows, 1, 1, length), bool)

    def attend(q: jax.Array) -> jax.Array:
        return compute_context(compute_masked_softmax(compute_scores(q, q), mask), q)

    product, gelu, attention = map(jax.jit, (jnp.matmul, ACTIVATIONS["gelu"], attend))
    for name, ours, theirs in (
        (
            "map to 4 x width",
            lambda: product(x, w),
            lambda: functional.linear(theirs_x, theirs_w),
        ),
        ("GELU of it", lambda: gelu(h), lambda: functional.gelu(theirs_h)),
        (
            "scores, softmax, context",
            lambda: attention(q),
            lambda: functional.scaled_dot_product_attention(*[theirs_q] * 3),
        ),
    ):
        calls = {"ours": _blocking(ours), "theirs": theirs}
        for call in calls.values():
            call()
        seconds = time_in_turns(calls)
        print_row(name, *(f"{1e3 * s:.1f}" for s in seconds.values()))


def _blocking(call: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(call())


def make_contenders(
    attributes: dict[str, Any], batch: Batch
) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]:
    """Returns calls without arguments: ours, eager PyTorch, compiled PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    config = parse_config(attributes)
    encoder = make_encoder(config, config.num_layers, jnp.float32)
    params = jax.jit(encoder.init)(jax.random.key(0), make_example_batch())["params"]
    with tempfile.TemporaryDirectory() as folder:
        export_encoder(params, None, config, attributes, Path(folder))
        # The default attention, which is the fastest.
        theirs = transformers.AutoModel.from_pretrained(
            folder, add_pooling_layer=False, trust_remote_code=False
        )
    theirs.eval()
    forward = jax.jit(lambda params: encoder.apply({"params": params}, batch)["x_BLD"])  # type: ignore[index]
    inputs = {
        "input_ids": torch.from_numpy(np.asarray(batch.token_ids)).long(),
        "attention_mask": torch.from_numpy(np.asarray(batch.mask)).long(),
    }
    compiled = torch.compile(theirs)

    def run(model: Any) -> Any:
        with torch.inference_mode():
            return model(**inputs).last_hidden_state

    return (
        lambda: jax.block_until_ready(forward(params)),
        lambda: run(theirs),
        lambda: run(compiled),
    )


def time_in_turns(contenders: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns the median seconds of each contender, after warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(_REPEATS):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
