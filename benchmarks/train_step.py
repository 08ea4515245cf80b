"""The train step of each method: speed, FLOPs, memory; a larger one on a GPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from measuring import print_header, print_row, time_median
from shapes import make_bert_attributes, make_random_batch

from sweet_jax.arrays import Batch, Params
from sweet_jax.devices import Programs, shape_of
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.init import init_params, make_example_batch
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment, split_model
from sweet_jax.runs.inputs import prepare
from sweet_jax.runs.train import keep_layers
from sweet_jax.settings.fields import Settings, default_exit_layers
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.methods import Member, make_members, separates_segments
from sweet_jax.training.optimizer import make_optimizer
from sweet_jax.training.state import TrainState, make_train_step

# The paper's methods; the steps of the others cost the same or less.
_METHODS = ("sweet", "early_exit", "multi_model")
_REPEATS = 7
_ROWS, _LENGTH, _LAYERS = 16, 128, (0, 1, 2, 5)


def measure_train_step() -> None:
    """Prints one row per method: 16 x 128 tokens, exits 0, 1, 2, 5 of 6 layers."""
    print_header(
        f"train step, {_ROWS} x {_LENGTH}",
        "examples/s",
        "GFLOP",
        "temporaries MB",
        "compile s",
    )
    for method in _METHODS:
        prepared = prepare(
            from_config_dict({"method": method, "exits": {"layers": _LAYERS}})
        )
        batch = make_random_batch(_ROWS, _LENGTH, prepared.config.vocab_size)
        cost = sum_costs(
            [
                measure_member(
                    model, member, prepared.settings, prepared.loaded.encoder, batch
                )
                for model, member in zip(prepared.models, prepared.members, strict=True)
            ]
        )
        print_row(
            method,
            f"{_ROWS / cost['seconds']:.1f}",
            f"{cost['flops'] / 1e9:.1f}",
            f"{cost['temporary_bytes'] / 1e6:.0f}",
            f"{cost['compile_seconds']:.1f}",
        )


def measure_accelerator(
    rows: int = 32, length: int = 128, num_layers: int = 12, width: int = 768
) -> None:
    """Prints train steps of a BERT-base shape in bfloat16, as shares of a ceiling.

    The ceiling is the measured speed of a large matrix product in bfloat16.
    """
    ceiling = measure_matmul(16 * width)
    print_header(
        f"train step, {rows} x {length}, {num_layers} layers x {width}, bfloat16",
        "examples/s",
        "TFLOP/s",
        f"share of {ceiling / 1e12:.1f} TFLOP/s",
        "temporaries MB",
    )
    config = parse_config(make_bert_attributes(num_layers, width))
    batch = make_random_batch(rows, length, config.vocab_size)
    encoder = make_encoder(config, num_layers, jnp.bfloat16)
    params = jax.jit(encoder.init)(jax.random.key(0), make_example_batch())["params"]
    layers = default_exit_layers(num_layers)
    for method in _METHODS:
        settings = from_config_dict(
            {"method": method, "encoder": {"dtype": "bfloat16"}}
        )
        model = MultiExitClassifier(
            encoder=encoder,
            exit_layers=layers,
            exit_numbers=tuple(range(len(layers))),
            num_classes=2,
            features=width,
            settings=settings.exits,
            dtype=jnp.bfloat16,
        )
        members = make_members(settings, len(layers))
        models = split_model(
            model, [member.exits for member in members], separates_segments(members)
        )
        cost = sum_costs(
            [
                measure_member(part, member, settings, params, batch)
                for part, member in zip(models, members, strict=True)
            ]
        )
        speed = cost["flops"] / cost["seconds"]
        print_row(
            method,
            f"{rows / cost['seconds']:.0f}",
            f"{speed / 1e12:.1f}",
            f"{speed / ceiling:.2f}",
            f"{cost['temporary_bytes'] / 1e6:.0f}",
        )


def measure_matmul(size: int) -> float:
    """Returns the floating-point operations per second of a bfloat16 product."""
    matrix = jnp.ones((size, size), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    seconds, _ = time_median(lambda: product(matrix, matrix), _REPEATS)
    return 2 * size**3 / seconds


def measure_member(
    model: MultiExitClassifier,
    member: Member,
    settings: Settings,
    encoder: Params,
    batch: Batch,
) -> dict[str, float]:
    """Returns the cost of the train step of one member."""
    step, state, key = make_step(model, member, settings, encoder)
    programs = Programs(jax.jit(step, donate_argnums=0))
    program = programs.compile(shape_of(batch), state, batch, key)

    def run() -> Any:
        nonlocal state
        state, metrics = program.call(state, batch, key)
        return metrics

    jax.block_until_ready(run())
    seconds, _ = time_median(run, _REPEATS)
    return {
        "seconds": seconds,
        "flops": program.flops,
        "temporary_bytes": program.temporary_bytes,
        "compile_seconds": programs.seconds,
    }


def sum_costs(members: list[dict[str, float]]) -> dict[str, float]:
    """Adds up members; they train one after the other, so memory is the maximum."""
    total = {name: sum(cost[name] for cost in members) for name in members[0]}
    total["temporary_bytes"] = max(cost["temporary_bytes"] for cost in members)
    return total


def make_step(
    model: MultiExitClassifier, member: Member, settings: Settings, encoder: Params
) -> tuple[Any, TrainState, jax.Array]:
    """Returns the train step of a member, its state and a key."""
    kept = keep_layers(encoder, model.exit_layers[-1] + 1)
    params = init_params(model, jax.random.key(0), kept, None)
    find = functools.partial(find_segment, exit_layers=model.exit_layers)
    phase = member.phases[0]
    optimizer = make_optimizer(settings.optim, params, phase.trainable, find, 100)
    # Copies, because the state is donated and other members need the same weights.
    params = jax.tree.map(jnp.array, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    step = make_train_step(model, phase.objectives[0], optimizer)
    return step, state, jax.random.key(1)
