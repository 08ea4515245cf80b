"""The contrastive phase: its loss by the formula, what it trains, and when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_model import init_dense_params, make_dense_training, make_rows

from sweet_jax.data.batches import plan_epoch
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.registries import BUILTIN_METHODS
from sweet_jax.training.contrastive import (
    TEMPERATURE,
    begin_contrastive,
    compute_contrastive_sum,
)
from sweet_jax.training.losses import compute_objective_losses
from sweet_jax.training.member_training import plan_phases
from sweet_jax.training.methods import make_members


def compute_by_formula(x_BD: np.ndarray, labels_B: np.ndarray) -> list[float]:
    """Returns each row's loss, Khosla et al. 2020, equation 2."""
    x_BD = x_BD / np.linalg.norm(x_BD, axis=1, keepdims=True)
    losses = []
    for i in range(len(x_BD)):
        others = [a for a in range(len(x_BD)) if a != i]
        alike = [p for p in others if labels_B[p] == labels_B[i]]
        total = sum(np.exp(x_BD[i] @ x_BD[a] / TEMPERATURE) for a in others)
        shares = [np.exp(x_BD[i] @ x_BD[p] / TEMPERATURE) / total for p in alike]
        losses.append(-np.mean(np.log(shares)) if alike else 0.0)
    return losses


def test_the_loss_is_the_papers(rng):
    x, labels = rng.normal(size=(7, 5)), np.array([0, 1, 0, 2, 1, 0, 1])
    found = compute_contrastive_sum(
        jnp.asarray(x, jnp.float32), jnp.asarray(labels), jnp.ones(7)
    )
    wanted = compute_by_formula(x, labels)
    assert wanted[3] == 0, "row 3 is alone"
    assert float(found) == pytest.approx(sum(wanted), rel=1e-5)
    weights = jnp.asarray([1, 2, 1, 1, 0.5, 1, 1], jnp.float32)
    weighted = compute_contrastive_sum(
        jnp.asarray(x, jnp.float32), jnp.asarray(labels), weights
    )
    assert float(weighted) == pytest.approx(float(weights @ np.array(wanted)), rel=1e-5)


def test_filling_rows_and_rows_alone_add_nothing(rng):
    x = rng.normal(size=(6, 4)).astype(np.float32)
    labels, weights = np.array([0, 1, 0, 2, 0, 0]), np.array([1, 1, 1, 1, 0, 0.0])
    x[4], x[5] = np.nan, np.inf
    loss, gradient = jax.value_and_grad(compute_contrastive_sum)(
        jnp.asarray(x), labels, weights
    )
    assert float(loss) == pytest.approx(sum(compute_by_formula(x[:4], labels[:4])))
    assert np.isfinite(gradient).all()
    assert not np.any(np.asarray(gradient)[4:])
    # Nothing is compared: no loss, no gradient, no NaN. Rows of zeros have no length.
    for other, kept in (
        (x, weights * 0),
        (x, [1, 1, 0, 1, 0, 0]),
        (np.zeros_like(x), weights),
    ):
        other[4:] = 0
        loss, gradient = jax.value_and_grad(compute_contrastive_sum)(
            jnp.asarray(other), labels, jnp.asarray(kept, jnp.float32)
        )
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("method", BUILTIN_METHODS)
def test_the_phase_comes_first_and_keeps_the_methods_seams(method):
    settings = from_config_dict({"method": method, "exits": {"layers": (0, 1, 3)}})
    for member in make_members(settings, 3):
        assert begin_contrastive(member, 0, 3, 1e-5) is member
        phase, first, *others = begin_contrastive(member, 5, 3, 1e-5).phases
        assert plan_phases((phase, first), 3 * 7)[1].first == 5 * 7
        assert (phase.trainable, phase.encoder_learning_rate) == (("encoder/.*",), 1e-5)
        assert dataclasses.replace(first, starts_exits=False) == member.phases[0]
        assert tuple(others) == member.phases[1:]
        assert not phase.starts_exits
        assert first.starts_exits
        for one, other in zip(
            phase.objectives, member.phases[0].objectives, strict=True
        ):
            assert one == dataclasses.replace(other, is_contrastive=True)


def test_the_phase_minimises_this_loss_on_pairs_of_a_class():
    training = make_dense_training(
        rows=make_rows(40),
        exits={"init": "probe"},
        train={"batch_size": 4, "contrastive_epochs": 1, "num_epochs": 1},
    )
    labels = training.data.rows.labels
    first, second = (training.plan_epoch(epoch) for epoch in (0, 1))
    pairs = [labels[plan.rows.reshape(-1, 2)] for plan in first]
    assert sum(int((pair[:, 0] != pair[:, 1]).sum()) for pair in pairs) <= 1
    usual = plan_epoch(training.data.rows.lengths, 4, training.data.buckets, 0, 1)
    for one, other in zip(second, usual, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
    batch = training.make_batch(first[0])
    params = init_dense_params(training.model)
    outputs = training.model.apply(
        {"params": params}, batch, train=True, rngs={"dropout": jax.random.key(0)}
    )
    (objective,) = training.spans[0].phase.objectives
    found = compute_objective_losses(outputs, batch.labels, batch.weights, objective)
    wanted = [sum(compute_by_formula(x.pooled_BD, batch.labels)) for x in outputs]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
