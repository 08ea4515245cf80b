"""Losses of exits: rows that only fill a batch, and what students learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from sklearn.utils.class_weight import compute_class_weight

from sweet_jax.training.losses import (
    compute_class_weights,
    compute_cross_entropy_sum,
    compute_divergence_sum,
    weigh_rows,
)


def test_filling_rows_add_exactly_nothing():
    logits = np.array([[1.0, 2.0], [np.nan, np.inf]], np.float32)
    labels = np.zeros(2, np.int32)
    weights = np.array([1, 0], np.float32)
    loss = compute_cross_entropy_sum(logits, labels, weights)
    alone = compute_cross_entropy_sum(logits[:1], labels[:1], weights[:1])
    assert float(loss) == float(alone)
    gradient = jax.grad(compute_cross_entropy_sum)(jnp.asarray(logits), labels, weights)
    assert not np.any(np.asarray(gradient)[1])


def test_divergence_is_scipys_from_student_to_teacher(rng):
    student, teacher = rng.normal(0, 2, (2, 5, 3)).astype(np.float32)
    weights = np.array([1, 1, 2, 1, 0], np.float32)
    p, q = scipy.special.softmax(student, 1), scipy.special.softmax(teacher, 1)
    expected = (scipy.special.rel_entr(p, q).sum(axis=1) * weights).sum()
    found = compute_divergence_sum(student, teacher, weights)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    student[4], teacher[4] = np.nan, np.inf
    assert float(compute_divergence_sum(student, teacher, weights)) == float(found)
    gradients = jax.grad(compute_divergence_sum, (0, 1))(
        jnp.asarray(student), jnp.asarray(teacher), weights
    )
    assert np.isfinite(gradients[0]).all()
    assert not np.any(gradients[1]), "the teacher learns nothing from its students"


def test_balanced_weights_are_scikit_learns(rng):
    labels = rng.choice(4, 50, p=[0.6, 0.2, 0.15, 0.05])
    labels[:4] = range(4)
    found = compute_class_weights(labels, 5)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert found is not None
    np.testing.assert_allclose(found, [*expected, 0])
    assert np.array(found)[labels].mean() == pytest.approx(1)


def test_equal_classes_have_no_weights_so_that_the_step_is_the_same():
    assert compute_class_weights(np.array([0, 2, 2, 0]), 3) is None
    rows = np.ones(4, np.float32)
    assert weigh_rows(np.array([0, 2, 2, 0]), rows, None) is rows
