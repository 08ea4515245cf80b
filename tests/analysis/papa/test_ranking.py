"""Scores of heads: trained gates, and those that need no training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from papa_models import load_frozen, make_random_constants, make_rows
from scipy.stats import entropy

from sweet_jax.analysis.papa.constants import AttentionPass
from sweet_jax.analysis.papa.frozen import make_attention
from sweet_jax.analysis.papa.probe import SentenceProbe
from sweet_jax.analysis.papa.ranking import (
    make_gates_init,
    make_gates_loss,
    measure_heads,
)

ROWS = make_rows(5)
CONSTANTS = make_random_constants()


@pytest.fixture(scope="module")
def frozen(tiny_encoder):
    return load_frozen(tiny_encoder)


@pytest.mark.slow
def test_a_head_of_one_attention_has_no_distance(frozen):
    order = np.arange(1)
    sums = AttentionPass(frozen, 1).run(ROWS, order, lambda _: None)
    scores = measure_heads(frozen, sums.average(), ROWS, order, 1, lambda _: None)
    np.testing.assert_allclose(scores["distance"], 0, atol=1e-6)
    other = measure_heads(frozen, CONSTANTS, ROWS, order, 1, lambda _: None)
    assert (other["distance"] > 0.01).all()
    np.testing.assert_array_equal(other["entropy"], scores["entropy"])


@pytest.mark.slow
def test_entropy_is_that_of_real_queries_whatever_the_batches(frozen):
    order = np.arange(5)
    seen = []
    found = measure_heads(frozen, CONSTANTS, ROWS, order, 2, seen.append)["entropy"]
    assert sum(seen) == 5
    batch = ROWS.take(order, 5)
    probabilities = np.asarray(frozen.compute_attention(frozen.weights, batch))
    total = np.zeros((4, 2))
    for i in range(5):
        real = ROWS.mask[i] == 1
        values = entropy(probabilities[:, i][:, :, real][..., real], axis=-1)
        total += values.sum(axis=-1) / np.log(real.sum())
    np.testing.assert_allclose(found, -total / ROWS.mask.sum(), rtol=1e-4)


@pytest.mark.slow
def test_gates_start_at_one_half_and_get_gradients(frozen):
    probe = SentenceProbe(2, 0.0)
    params = make_gates_init(frozen, probe, ROWS.length)(jax.random.key(0))
    assert (params["gates"] == 0).all()
    batch = ROWS.take(np.arange(5), 5)
    compute = make_gates_loss(frozen, probe, drops_in_encoder=False)
    args = (jnp.asarray(CONSTANTS), frozen.weights, batch, jax.random.key(1))
    loss, gradient = jax.value_and_grad(compute)(params, *args)
    assert (np.abs(gradient["gates"]) > 0).all()
    half = make_attention(jnp.full((4, 2), 0.5), jnp.asarray(CONSTANTS))
    states = frozen.compute_states(frozen.weights, batch, half)
    logits = probe.apply({"params": params["probe"]}, states, ROWS.mask, False)
    losses = -jax.nn.log_softmax(logits)[np.arange(5), ROWS.labels]
    np.testing.assert_allclose(loss, losses.mean(), rtol=1e-5)
