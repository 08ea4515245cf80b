"""Whole training steps: on several devices, in parts, with real optimisers."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_exits import EXIT_LAYERS, make_two_exit_model

from sweet_jax import devices
from sweet_jax.arrays import Batch, Params
from sweet_jax.devices import make_mesh, replicate, shard_batch
from sweet_jax.models.init import compute_shapes, init_params
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment, split_model
from sweet_jax.settings.fields import ExitSettings, OptimSettings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.methods import make_members, separates_segments
from sweet_jax.training.objectives import Objective
from sweet_jax.training.optimizer import make_optimizer
from sweet_jax.training.state import TrainState, make_train_step
from sweet_jax.trees import flatten_paths, unflatten_paths

JOINT = Objective((1.0,), (1.0, 1.0))
SETTINGS = OptimSettings(
    encoder_learning_rate=0.01, exit_learning_rate=0.1, schedule="constant",
    warmup_percent=0.0, weight_decay=0.01, epsilon_mode="after_correction",
    clip_scope="global",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_encoder) -> MultiExitClassifier:
    """Two exits, no dropout."""
    return make_two_exit_model(tiny_encoder)


@pytest.fixture(scope="module")
def params(model) -> Params:
    return make_params(model)


@pytest.fixture(scope="module")
def lte_model(model) -> MultiExitClassifier:
    """The same with learning-to-exit heads."""
    settings = ExitSettings(pooling="mean", dropout=0.0, learn_to_exit=True)
    return model.clone(settings=settings)


@pytest.fixture(scope="module")
def lte_params(lte_model) -> Params:
    return make_params(lte_model)


def make_params(model: MultiExitClassifier) -> Params:
    encoder = model.encoder.clone(parent=None)
    zeros = np.zeros((1, 2), np.int32)
    batch = Batch(
        zeros, zeros, zeros, zeros[0, :1], np.zeros(1, np.float32), zeros[0, :1]
    )
    loaded = encoder.init(jax.random.key(0), batch)["params"]
    return jax.device_get(init_params(model, jax.random.key(1), loaded, None))


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 30, (8, 6)).astype(np.int32)
    return Batch(
        ids,
        np.zeros_like(ids),
        np.ones_like(ids),
        (ids[:, 0] % 2).astype(np.int32),
        np.array([1] * 7 + [0], np.float32),
        np.arange(8, dtype=np.int32),
    )


def run_steps(
    model: Any,
    params: Params,
    batch: Batch,
    steps: int,
    rows: int = 8,
    objective: Objective = JOINT,
    **fields: Any,
) -> tuple[Params, list[np.ndarray]]:
    """Returns parameters, and losses per exit of some steps on one batch.

    Where exits learn to exit, their squared errors follow the cross-entropies.
    """
    optimizer = make_optimizer(
        SETTINGS,
        params,
        (".*",),
        functools.partial(find_segment, exit_layers=EXIT_LAYERS),
        9,
    )
    step = jax.jit(make_train_step(model, objective, optimizer, **fields))
    mesh = make_mesh(rows)
    state = replicate(
        TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)), mesh
    )
    key, losses = replicate(jax.random.key(3), mesh), []
    for _ in range(steps):
        state, metrics = step(state, shard_batch(batch, mesh), key)
        sums = [s for s in (metrics.loss_sum_E, metrics.lte_sum_E) if s is not None]
        losses.append(np.concatenate(sums))
    return jax.device_get(state.params), losses


def assert_trees_close(one: Params, two: Params, steps: int) -> None:
    """Compares parameters to a thousandth of the distance that they can have moved.

    Adam divides by the gradient's own size, so the rounding noise of a tiny gradient
    shows as a part of a step, whatever the size of the parameter.
    """
    other = flatten_paths(two)
    for path, leaf in flatten_paths(one).items():
        # Softmax does not see key biases: their gradient is nothing but noise.
        if path.endswith("attention/key/bias"):
            continue
        rate = SETTINGS.exit_learning_rate
        if path.startswith("encoder/"):
            rate = SETTINGS.encoder_learning_rate
        np.testing.assert_allclose(
            leaf, other[path], rtol=0, atol=1e-3 * rate * steps, err_msg=path
        )


@pytest.mark.slow
def test_several_devices_and_accumulation_equal_one_device(
    lte_model, lte_params, batch, monkeypatch
):
    model, params = lte_model, lte_params
    assert len(jax.devices()) == 4, "conftest simulates four devices"
    sharded, sharded_losses = run_steps(model, params, batch, 3)
    parts, parts_losses = run_steps(model, params, batch, 3, rows=4, accumulate_steps=2)
    one = jax.devices()[:1]
    monkeypatch.setattr(devices.jax, "devices", lambda: one)
    single, single_losses = run_steps(model, params, batch, 3)
    for losses in (sharded_losses, parts_losses):
        np.testing.assert_allclose(losses, single_losses, rtol=1e-4)
    assert_trees_close(sharded, single, steps=3)
    assert_trees_close(parts, single, steps=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "scale"),
    [
        ("sweet", 0.0),
        pytest.param("sweet", 0.3, marks=pytest.mark.slow),
        pytest.param("early_exit", 0.0, marks=pytest.mark.slow),
        pytest.param("multi_model", 0.0, marks=pytest.mark.slow),
    ],
)
def test_each_method_overfits_eight_examples(model, params, batch, method, scale):
    settings = from_config_dict({"method": method, "boundary_gradient_scale": scale})
    members = make_members(settings, len(EXIT_LAYERS))
    models = split_model(
        model, [member.exits for member in members], separates_segments(members)
    )
    for member, part in zip(members, models, strict=True):
        own = flatten_paths(compute_shapes(part))
        tree = unflatten_paths({p: flatten_paths(params)[p] for p in own})
        (objective,) = member.phases[0].objectives
        _, losses = run_steps(part, tree, batch, 60, objective=objective)
        assert (losses[-1] < 0.1 * losses[0]).all(), (member.name, losses[-1])


@pytest.mark.slow
def test_exits_learn_that_they_are_right_and_one_without_weight_learns_nothing(
    lte_model, lte_params, batch
):
    # SWEET's seam: exit 1 learns nothing through exit 0 either.
    objective = Objective((0.0,), (1.0, 0.0))
    trained, losses = run_steps(lte_model, lte_params, batch, 60, objective=objective)
    outputs: Any = lte_model.apply({"params": trained}, batch)
    real = batch.weights > 0
    assert (outputs[0].logits_BC.argmax(axis=1) == batch.labels)[real].all()
    assert (outputs[0].lte_B[real] > 0.95).all()
    # Logged in the order of cross-entropies, then squared errors.
    right_E = [(o.logits_BC.argmax(axis=1) == batch.labels)[real] for o in outputs]
    errors_E = [
        ((o.lte_B[real] - right) ** 2).sum()
        for o, right in zip(outputs, right_E, strict=True)
    ]
    assert losses[-1].shape == (4,)
    np.testing.assert_allclose(losses[-1][2:], errors_E, rtol=0.1, atol=1e-3)
    before = flatten_paths(lte_params["exits"]["exit_1"])
    # No gradient: what moves is the decay of kernels, by one factor per step.
    for path, leaf in flatten_paths(trained["exits"]["exit_1"]).items():
        decay = 1 - SETTINGS.exit_learning_rate * SETTINGS.weight_decay
        factor = decay**60 if path.endswith("kernel") else 1.0
        np.testing.assert_allclose(leaf, before[path] * factor, rtol=1e-4)


def test_other_rates_and_steps_run_the_same_program(model, params, batch):
    texts = []
    for rate, steps in ((0.1, 9), (0.3, 20)):
        settings = dataclasses.replace(SETTINGS, exit_learning_rate=rate)
        optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, steps)
        step = jax.jit(make_train_step(model, JOINT, optimizer))
        state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
        texts.append(step.lower(state, batch, jax.random.key(0)).as_text())
    assert texts[0] == texts[1]
