"""The optimiser: learning rates, schedules, decay, clipping, frozen parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_exits import EXIT_LAYERS, make_random_params, make_two_exit_model

from sweet_jax.arrays import Params
from sweet_jax.models.multi_exit import find_segment
from sweet_jax.settings.fields import OptimSettings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.optimizer import make_clipping, make_optimizer, make_schedule
from sweet_jax.trees import flatten_paths, make_mask, unflatten_paths

SETTINGS = OptimSettings(
    encoder_learning_rate=0.01, exit_learning_rate=0.1, schedule="constant",
    warmup_percent=0.0, weight_decay=0.01, epsilon_mode="after_correction",
    clip_scope="global",
)  # fmt: skip


@pytest.fixture(scope="module")
def params(tiny_encoder) -> Params:
    return make_random_params(make_two_exit_model(tiny_encoder))


def test_clip_scope_segment_keeps_segments_apart(params):
    gradient = jax.tree.map(jnp.ones_like, params)
    huge = {**gradient, "exits": {**gradient["exits"]}}
    huge["exits"]["exit_1"] = jax.tree.map(
        lambda x: x * 1e6, gradient["exits"]["exit_1"]
    )

    def update(scope: str, tree: Params) -> dict[str, np.ndarray]:
        settings = dataclasses.replace(SETTINGS, clip_scope=scope)
        find = functools.partial(find_segment, exit_layers=EXIT_LAYERS)
        clipping = make_clipping(settings, params, find)
        clipped, _ = clipping.update(tree, clipping.init(params), params)
        return flatten_paths(clipped)  # type: ignore[arg-type]

    path = "exits/exit_0/classifier/kernel"
    np.testing.assert_array_equal(
        update("segment", gradient)[path], update("segment", huge)[path]
    )
    assert np.abs(update("global", huge)[path]).max() < 1e-3
    norm = np.sqrt(
        sum(
            (np.asarray(g) ** 2).sum()
            for p, g in update("segment", huge).items()
            if find_segment(p, EXIT_LAYERS) == 1
        )
    )
    assert norm == pytest.approx(1.0, rel=1e-4)


def test_frozen_parameters_keep_still_and_have_no_state(params):
    optimizer = make_optimizer(SETTINGS, params, ("exits/.*",), lambda path: 0, 3)
    state = optimizer.init(params)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradient, state, params)
    moves = {p: bool(np.any(u)) for p, u in flatten_paths(updates).items()}  # type: ignore[arg-type]
    learns = flatten_paths(make_mask(params, ("exits/.*",)))
    assert moves == learns
    state_size = sum(np.size(x) for x in jax.tree.leaves(state))
    exits_size = sum(np.size(x) for x in jax.tree.leaves(params["exits"]))
    assert state_size < 2 * exits_size + 20


def test_two_learning_rates_and_decay_of_kernels_only(params):
    settings = dataclasses.replace(SETTINGS, weight_decay=0.5, clip_norm=0.0)
    optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, 3)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates = flatten_paths(optimizer.update(zero, optimizer.init(params), params)[0])  # type: ignore[arg-type]
    flat = flatten_paths(params)
    for path, rate in (
        ("encoder/layer_0/attention/query/kernel", 0.01),
        ("exits/exit_0/classifier/kernel", 0.1),
    ):
        np.testing.assert_allclose(updates[path], -rate * 0.5 * flat[path], rtol=1e-5)
    assert not np.any(updates["encoder/layer_0/attention/norm/scale"])


@pytest.mark.parametrize("kind", ["linear", "constant"])
def test_schedule_rises_then_falls_or_stays(kind):
    settings = OptimSettings(schedule=kind, warmup_percent=20.0)
    schedule = make_schedule(settings, 1.0, 10)
    rates = [float(schedule.compute_learning_rate(jnp.int32(i))) for i in range(12)]
    after = np.linspace(1, 0, 9) if kind == "linear" else np.ones(9)
    np.testing.assert_allclose(rates, [0, 0.5, *after, after[-1]], atol=1e-6)
    no_rise = dataclasses.replace(settings, warmup_percent=0.0)
    assert (
        float(make_schedule(no_rise, 1.0, 10).compute_learning_rate(jnp.int32(0))) == 1
    )


def step_old_adamw(
    params: dict[str, np.ndarray],
    gradients: dict[str, np.ndarray],
    state: dict[str, list[np.ndarray]],
    step: int,
    rate: float,
    decay: float,
) -> dict[str, np.ndarray]:
    """One step of transformers' AdamW of 4.21 as the Trainer runs it, in float64.

    Written from its formula: gradients clipped to a norm of 1 over all parameters, then
    p -= rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps), then p -= rate *
    decay * p for kernels. `step` counts from 1.
    """
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
    clip = min(1.0, 1.0 / (norm + 1e-6))
    rate_t = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    moved = {}
    for path, p in params.items():
        g = gradients[path].astype(np.float64) * clip
        m, v = state.setdefault(path, [np.zeros_like(p), np.zeros_like(p)])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        state[path] = [m, v]
        moved[path] = p - rate_t * m / (np.sqrt(v) + 1e-8)
        if decay and path.endswith("kernel"):
            moved[path] -= rate * decay * moved[path]
    return moved


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_faithful_steps_are_those_of_the_old_adamw(rng, decay):
    """Moves of 60 steps, to a thousandth: clip, schedule, rates, epsilon, decay."""
    settings = dataclasses.replace(
        from_config_dict({"faithful_release": True}).optim, weight_decay=decay
    )
    # Where gradients are about as small as epsilon it matters where that is added.
    sizes = {
        "encoder/layer_0/attention/query/kernel": 1e-8,
        "encoder/layer_1/attention/query/kernel": 1e-7,
        "encoder/layer_2/attention/query/bias": 1e-6,
        "exits/exit_0/classifier/kernel": 0.3,
    }
    start = {path: rng.normal(0, 0.02, (8, 4)) for path in sizes}
    directions = {path: rng.normal(size=(8, 4)) for path in sizes}
    params = unflatten_paths({p: jnp.float32(leaf) for p, leaf in start.items()})
    num_steps = 60
    optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, num_steps)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    theirs, their_state = start, {}
    for step in range(num_steps):
        gradients = {
            path: np.float32(size * (directions[path] + rng.normal(size=(8, 4))))
            for path, size in sizes.items()
        }
        # As theirs moved so far: a step is compared, not a sum of rounding errors.
        params = unflatten_paths({p: jnp.float32(leaf) for p, leaf in theirs.items()})
        moves, state = update(unflatten_paths(gradients), state, params)
        rate = 5e-5 * (1 - step / num_steps)  # To 0, without a warm-up.
        moved = step_old_adamw(theirs, gradients, their_state, step + 1, rate, decay)
        for path, move in flatten_paths(moves).items():
            their_move = moved[path] - theirs[path]
            np.testing.assert_allclose(
                move, their_move, rtol=1e-3, atol=1e-3 * np.abs(their_move).mean()
            )
        theirs = moved


def test_epsilon_before_the_correction_holds_small_gradients_back(params):
    """By the formula: 1 / (1 + 31.6) against 1 / (1 + 1) at step 1."""
    gradient = jax.tree.map(lambda p: jnp.full_like(p, 1e-8), params)

    def move(mode: str) -> np.ndarray:
        settings = dataclasses.replace(SETTINGS, epsilon_mode=mode, weight_decay=0.0)
        optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, 3)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return flatten_paths(updates)["encoder/layer_0/attention/query/kernel"]

    np.testing.assert_allclose(move("after_correction"), -0.01 / 2, rtol=1e-4)
    before = -0.01 / (1 + 0.001**-0.5)
    np.testing.assert_allclose(move("before_correction"), before, rtol=1e-4)
