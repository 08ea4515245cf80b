"""Speed and memory of training and of the trade-off: one command, one table.

    python benchmarks/run.py [train] [tradeoff] [compile]      (default: all three)

Run it on otherwise idle cores. Times are medians of repeated runs, paired within this
process; FLOPs and temporaries are XLA's own analysis and do not move.
"""

import dataclasses
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sweet_jax.arrays import Batch
from sweet_jax.data.batches import make_batch, plan_evaluation
from sweet_jax.evaluation.cascade import choose_exits
from sweet_jax.evaluation.collect import Collector
from sweet_jax.exits.criteria import compute_scores, make_thresholds
from sweet_jax.models.initial import init_params
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment, join_models
from sweet_jax.prepare import Prepared, prepare
from sweet_jax.resolve import from_config_dict
from sweet_jax.results import compute_train_padding
from sweet_jax.settings import METHODS
from sweet_jax.training.loop import measure_step
from sweet_jax.training.method import make_members
from sweet_jax.training.optim import make_optimizer
from sweet_jax.training.state import TrainState, make_train_step

_REPEATS = 7
_ROWS, _LENGTH, _LAYERS = 16, 128, (0, 1, 2, 5)


def time_median(function: Callable[[], Any], repeats: int = _REPEATS) -> float:
    """Returns the median seconds of a call, after one that warms up."""
    jax.block_until_ready(function())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def print_row(*cells: object) -> None:
    """Prints a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def make_random_batch(rows: int, length: int) -> Batch:
    """Returns a batch without padding."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20000, (rows, length)).astype(np.int32)
    row = np.arange(rows, dtype=np.int32)
    return Batch(
        ids, ids * 0, np.ones_like(ids), row % 2, np.ones(rows, np.float32), row
    )


def measure_training() -> None:
    """Prints a row per method: one train step of 16 x 128, exits 0, 1, 2, 5."""
    print_row(
        "train step, 16 x 128", "examples/s", "GFLOP", "temporaries MB", "compile s"
    )
    print_row(*["---"] * 5)
    for method in METHODS:
        prepared = prepare(
            from_config_dict({"method": method, "exits": {"layers": _LAYERS}})
        )
        seconds = flops = temporaries = compile_seconds = 0.0
        for model, member in zip(prepared.models, prepared.members, strict=True):
            start = time.perf_counter()
            step, state, key = make_step(prepared, model, member)
            batch = make_random_batch(_ROWS, _LENGTH)
            compiled = jax.jit(step).lower(state, batch, key).compile()
            compile_seconds += time.perf_counter() - start
            seconds += time_median(functools.partial(compiled, state, batch, key))
            cost = measure_step(model, member.phases[0], prepared.settings, _LENGTH)
            flops += cost.flops
            temporaries = max(temporaries, cost.temporary_bytes)
        print_row(
            method, f"{_ROWS / seconds:.1f}", f"{flops / 1e9:.1f}",
            f"{temporaries / 1e6:.0f}", f"{compile_seconds:.1f}",
        )  # fmt: skip


def make_step(prepared: Prepared, model: MultiExitClassifier, member: Any) -> Any:
    """Returns the train step of a member, its state and a key."""
    settings = prepared.settings
    encoder = {
        name: part
        for name, part in prepared.loaded.encoder.items()
        if not name.startswith("layer_") or int(name[6:]) <= model.exit_layers[-1]
    }
    params = init_params(model, jax.random.key(0), encoder, None)
    find = functools.partial(find_segment, exit_layers=settings.exits.layers)
    phase = member.phases[0]
    optimizer = make_optimizer(settings.optim, params, phase.trainable, find, 100)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    return make_train_step(model, phase, optimizer), state, jax.random.key(1)


def measure_tradeoff() -> None:
    """Prints how the trade-off of 11 thresholds gets cheaper, step by step.

    The first row is what the released code does: the model again for every threshold,
    one example at a time, padded to 256, stopping at the exit that is confident.
    """
    settings = from_config_dict({"data": {"max_length": 256}})
    prepared = prepare(settings)
    model, member = prepared.models[0], make_members(settings, 4)[0]
    _, state, _ = make_step(prepared, model, member)
    params = jax.device_put(state.params)
    rows = prepared.rows["test"]
    end = int(rows.offsets[100])
    rows = dataclasses.replace(
        rows,
        token_ids=rows.token_ids[:end],
        type_ids=rows.type_ids[:end],
        offsets=rows.offsets[:101],
        labels=rows.labels[:100],
        row_ids=rows.row_ids[:100],
    )
    thresholds = make_thresholds("confidence", 11, 2, 4)
    start_fn = jax.jit(lambda p, b: model.apply({"params": p}, b, method="start"))
    segment_fns = [jax.jit(functools.partial(_run_segment, model, i)) for i in range(4)]

    def run_again(buckets: tuple[int, ...]) -> np.ndarray:
        plans = plan_evaluation(rows.lengths, 1, buckets)
        exits = np.zeros((len(thresholds), 100), np.int64)
        for t, threshold in enumerate(thresholds):
            for plan in plans:
                carry = start_fn(params, make_batch(rows, plan, 1, prepared.pad_id))
                for i, segment_fn in enumerate(segment_fns):
                    carry, score = segment_fn(params, carry)
                    if float(score) >= threshold or i == 3:
                        exits[t, plan.rows[0]] = i
                        break
        return exits

    def run_batched(size: int) -> np.ndarray:
        exits = [choose(collector_of(size)) for _ in thresholds]
        return np.stack([e[t] for t, e in enumerate(exits)])

    collectors: dict[int, Collector] = {}

    def collector_of(size: int) -> Collector:
        if size not in collectors:
            collectors[size] = Collector(
                join_models(prepared.models), size, prepared.buckets, prepared.pad_id
            )
        return collectors[size]

    def choose(collector: Collector) -> np.ndarray:
        bank = collector.collect(params, rows)
        scores = compute_scores("confidence", bank.logits)
        return np.asarray(choose_exits(scores, thresholds))

    ways: list[tuple[str, Callable[[], np.ndarray], int]] = [
        ("again per threshold, batch 1, padded to 256 (released code)",
         lambda: run_again((256,)), 1),
        ("+ length buckets", lambda: run_again(prepared.buckets), 1),
        ("+ batches of 64, every exit", lambda: run_batched(64), 3),
        ("+ one pass, thresholds replayed", lambda: choose(collector_of(64)), 5),
    ]  # fmt: skip
    print_row("11 thresholds, 100 test rows", "seconds", "times faster", "same exits")
    print_row(*["---"] * 4)
    first, reference = 0.0, ways[0][1]()
    for name, way, repeats in ways:
        seconds = time_median(way, repeats)
        first = first or seconds
        same = float((way() == reference).mean())
        print_row(name, f"{seconds:.3f}", f"{first / seconds:.1f}", f"{same:.4f}")


def _run_segment(model: Any, i: int, params: Any, carry: Any) -> Any:
    carry = model.apply({"params": params}, i, carry, method="run_segment")
    output = model.apply({"params": params}, i, carry, method="exit_outputs")
    return carry, jax.nn.softmax(output.logits_BC).max()


def measure_compilation() -> None:
    """Prints padding, and the programs of a short main job, cold and cached."""
    padding = compute_train_padding(prepare(from_config_dict({})))
    print_row("main job on 64 rows, 1 epoch", "programs", "compile s")
    print_row(*["---"] * 3)
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "persistent cache"):
            code = (
                "from sweet_jax import runner\n"
                "from sweet_jax.resolve import from_config_dict\n"
                "import sys\n"
                "s = from_config_dict({'data': {'max_train_examples': 64},"
                " 'train': {'num_epochs': 1}})\n"
                "_, r = runner.run(s, __import__('pathlib').Path(sys.argv[1]), True)\n"
                "print(sum(r['programs'].values()), r['seconds']['compile'])\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", code, f"{cache}/{name.split()[0]}"],
                env=os.environ | {"SWEET_JAX_CACHE": f"{cache}/c"},
                capture_output=True,
                text=True,
                check=True,
            )
            print_row(name, *done.stdout.split()[-2:])
    print(f"\npadded over real tokens, training at 2,000 rows: {padding:.3f}")


_PARTS = {
    "train": measure_training,
    "tradeoff": measure_tradeoff,
    "compile": measure_compilation,
}


def main() -> None:
    """Prints the tables that were asked for."""
    names = sys.argv[1:] or list(_PARTS)
    unknown = [name for name in names if name not in _PARTS]
    if unknown:
        sys.exit(f"unknown part {unknown[0]!r}: allowed are {', '.join(_PARTS)}")
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    )
    for name in names:
        print()
        _PARTS[name]()


if __name__ == "__main__":
    main()
