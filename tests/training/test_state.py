"""The pure step: what its gradient is, what its metrics are, what changes neither."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from dense_model import VOCABULARY, init_dense_params, make_dense_model

from sweet_jax.arrays import Batch, Params
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.training.objectives import Objective
from sweet_jax.training.state import StepMetrics, TrainState, make_train_step
from sweet_jax.trees import flatten_paths

OBJECTIVE = Objective((1.0, 0.0), (1.0, 0.5, 0.25))
KEY = jax.random.key(0)
# Gradient descent with rate 1: parameters move by the gradient.
SGD = optax.sgd(1.0)
Step = Callable[[Params, Batch, int], tuple[Params, StepMetrics]]


def make_batch(weights: list[float], seed: int = 0) -> Batch:
    """Returns rows of 3 to 6 tokens with these weights."""
    rng = np.random.default_rng(seed)
    shape = (len(weights), 6)
    mask = (np.arange(6) < rng.integers(3, 7, (shape[0], 1))).astype(np.int32)
    ids = rng.integers(4, VOCABULARY, shape).astype(np.int32) * mask
    return Batch(
        token_ids=ids,
        type_ids=np.zeros_like(ids),
        mask=mask,
        labels=ids[:, 0] % 2,
        weights=np.array(weights, np.float32),
        row_ids=np.arange(shape[0], dtype=np.int32),
    )


def compile_step(model: MultiExitClassifier, accumulate_steps: int = 1) -> Step:
    """Returns (parameters, batch, step) -> moved parameters and metrics."""
    step = jax.jit(make_train_step(model, OBJECTIVE, SGD, accumulate_steps))

    def run(params: Params, batch: Batch, done: int) -> tuple[Params, StepMetrics]:
        state = TrainState(jnp.int32(done), params, SGD.init(params))
        state, metrics = step(state, batch, KEY)
        assert int(state.step) == done + 1
        return jax.device_get((state.params, metrics))

    return run


@pytest.fixture(scope="module")
def model() -> MultiExitClassifier:
    """Three exits without dropout."""
    return make_dense_model(dropout=0.0)


@pytest.fixture(scope="module")
def params(model) -> Params:
    return init_dense_params(model)


@pytest.fixture(scope="module")
def step(model) -> Step:
    return compile_step(model)


def assert_same_moves(one: Params, two: Params) -> None:
    other = flatten_paths(two)
    for path, leaf in flatten_paths(one).items():
        np.testing.assert_allclose(leaf, other[path], atol=1e-6, err_msg=path)


def test_metrics_are_sums_before_the_step_and_the_norm_of_its_gradient(
    model, params, step
):
    batch = make_batch([1, 1, 0, 1, 1, 0, 1, 1])
    moved, metrics = step(params, batch, 0)
    outputs: Any = model.apply({"params": params}, batch)
    real = batch.weights > 0
    for i, output in enumerate(outputs):
        log_p_BC = scipy.special.log_softmax(np.asarray(output.logits_BC), axis=1)
        right_B = log_p_BC[np.arange(8), batch.labels]
        assert metrics.loss_sum_E[i] == pytest.approx(-right_B[real].sum(), rel=1e-5)
    assert metrics.weight == 6
    assert metrics.lte_sum_E is None
    moves = jax.tree.map(lambda a, b: a - b, params, moved)
    assert metrics.gradient_norm == pytest.approx(
        float(optax.tree.norm(moves)), rel=1e-4
    )


def test_parts_of_a_batch_move_as_the_whole(model, params, step):
    """Also where one part has more real rows than the other, or none."""
    in_parts = compile_step(model, accumulate_steps=2)
    for weights in ([1, 1, 1, 0, 1, 0, 1, 1], [1, 0, 1, 0, 1, 0, 0, 0]):
        batch = make_batch(weights)
        whole, parts = step(params, batch, 0), in_parts(params, batch, 0)
        assert_same_moves(parts[0], whole[0])
        for one, other in zip(parts[1][:3], whole[1][:3], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_rows_that_fill_the_batch_change_nothing(params, step):
    weights = [1, 1, 0, 1, 1, 0, 1, 1]
    one, other = make_batch(weights), make_batch(weights, seed=1)
    real = one.weights > 0
    mixed = Batch(
        *(
            np.where(real.reshape(-1, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(one, other, strict=True)
        )
    )
    assert (mixed.token_ids != one.token_ids).any()
    for found, expected in zip(
        step(params, mixed, 0), step(params, one, 0), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_batch_without_real_rows_moves_nothing(params, step):
    moved, metrics = step(params, make_batch([0] * 8), 0)
    jax.tree.map(np.testing.assert_array_equal, moved, params)
    assert metrics.weight == metrics.gradient_norm == 0


@pytest.mark.parametrize("teacher", [None, 2])
def test_class_weights_weigh_rows_in_the_gradient_and_not_in_metrics(
    model, params, teacher
):
    """As if rows of class 1 occurred three times, divided by the real rows."""
    objective = dataclasses.replace(OBJECTIVE, teacher=teacher)
    batch = make_batch([1, 1, 1, 1, 1, 0])
    labels = np.array([0, 1, 0, 0, 1, 1])
    batch = batch._replace(labels=labels)

    def move(batch: Batch, **fields: Any) -> tuple[Params, StepMetrics]:
        step = jax.jit(make_train_step(model, objective, SGD, **fields))
        state = TrainState(jnp.int32(0), params, SGD.init(params))
        state, metrics = step(state, batch, KEY)
        return jax.device_get((state.params, metrics))

    weighted, metrics = move(batch, class_weights=(0.5, 1.5))
    plain, plain_metrics = move(batch)
    row_weights = batch.weights * np.where(labels, 1.5, 0.5).astype(np.float32)
    # The same gradient, divided by the sum of its weights instead of the 5 real rows.
    scaled, _ = move(batch._replace(weights=row_weights))
    flat, other = flatten_paths(weighted), flatten_paths(scaled)
    start = flatten_paths(params)
    for path, leaf in flat.items():
        expected = (other[path] - start[path]) * row_weights.sum() / 5
        np.testing.assert_allclose(leaf - start[path], expected, atol=1e-6)
    assert any((flat[p] != leaf).any() for p, leaf in flatten_paths(plain).items())
    np.testing.assert_allclose(metrics.loss_sum_E, plain_metrics.loss_sum_E, rtol=1e-6)
    assert metrics.weight == 5


def test_dropout_is_a_function_of_the_step_and_of_the_part():
    model = make_dense_model(dropout=0.5)
    params = init_dense_params(model)
    in_parts = compile_step(model, accumulate_steps=2)
    row = make_batch([1] * 2)
    same = Batch(*(np.repeat(x[:1], 2, axis=0) for x in row))

    def compute_loss(weights: list[float], done: int) -> np.ndarray:
        batch = same._replace(weights=np.array(weights, np.float32))
        return in_parts(params, batch, done)[1].loss_sum_E

    np.testing.assert_array_equal(compute_loss([1, 0], 3), compute_loss([1, 0], 3))
    assert (compute_loss([1, 0], 3) != compute_loss([1, 0], 4)).any()
    # The same row, once in each part.
    assert (compute_loss([1, 0], 3) != compute_loss([0, 1], 3)).any()


def test_both_losses_count_once_by_the_exits_own_scale(model):
    """A step of gradient descent moves the biases as the formulas say."""
    settings = ExitSettings(pooling="mean", dropout=0.0, learn_to_exit=True)
    model = model.clone(settings=settings)
    params = init_dense_params(model)
    batch = make_batch([1] * 7 + [0])
    moved, metrics = compile_step(model)(params, batch, 0)
    outputs: Any = model.apply({"params": params}, batch)
    labels_B = batch.labels[:7]
    for i, scale in enumerate(OBJECTIVE.exit_scale):
        logits_BC, u_B = (np.asarray(part)[:7] for part in outputs[i][:2])
        right_B = logits_BC.argmax(axis=1) == labels_B
        probs_BC = scipy.special.softmax(logits_BC, axis=1)
        expected = {
            "lte": [(2 * (u_B - right_B) * u_B * (1 - u_B)).mean()],
            "classifier": (probs_BC - np.eye(2)[labels_B]).mean(0),
        }
        before, after = (p["exits"][f"exit_{i}"] for p in (params, moved))
        for name, gradient in expected.items():
            moves = before[name]["bias"] - after[name]["bias"]
            np.testing.assert_allclose(
                moves, scale * np.asarray(gradient), rtol=1e-3, atol=1e-6
            )
        errors_B = (u_B - right_B) ** 2
        assert metrics.lte_sum_E[i] == pytest.approx(errors_B.sum(), rel=1e-4)
