"""Kept and streamed states give the same probes; scores are those of the probe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from papa_models import NoStore, load_frozen, make_random_constants, make_rows

from sweet_jax.analysis.papa.fit import Fit, FitSettings
from sweet_jax.analysis.papa.frozen import make_attention
from sweet_jax.analysis.papa.points import (
    Heads,
    StatePass,
    make_kept_loss,
    make_streamed_loss,
)
from sweet_jax.analysis.papa.probe import SentenceProbe
from sweet_jax.analysis.papa.ranking import make_probe_init

ROWS = make_rows(6)
HEADS = Heads(
    np.array([np.ones((4, 2)), np.zeros((4, 2))], bool),
    np.stack([make_random_constants(seed=i) for i in (0, 1)]),
)
PROBE = SentenceProbe(2, 0.1)


@pytest.fixture(scope="module")
def frozen(tiny_encoder):
    return load_frozen(tiny_encoder)


@pytest.mark.slow
def test_states_are_kept_row_by_row_and_point_by_point(frozen):
    seen = []
    kept = StatePass(frozen, PROBE, 4).keep(HEADS, ROWS, seen.append)
    assert sum(seen) == 12
    batch = ROWS.take(np.arange(6), 6)
    for p in range(2):
        attention = make_attention(*(jnp.asarray(part[p]) for part in HEADS))
        expected = frozen.compute_states(frozen.weights, batch, attention)
        np.testing.assert_allclose(kept[p, :6], expected, atol=1e-5)


@pytest.mark.slow
def test_kept_and_streamed_states_give_the_same_probes(frozen):
    states = StatePass(frozen, PROBE, 4)
    settings = FitSettings(4, 2, {"probe": 0.01}, (0, 1), 100, 2)
    init_fn = make_probe_init(frozen, PROBE, ROWS.length)
    found = []
    for loss_fn, data in (
        (make_kept_loss(PROBE), states.keep(HEADS, ROWS, lambda _: None)),
        (make_streamed_loss(frozen, PROBE, False), HEADS),
    ):
        fit = Fit(loss_fn, ROWS, settings)
        state = fit.make_state(init_fn, 2)
        found.append(
            fit.run(
                state,
                data,
                states.weights,
                NoStore(),
                lambda *_: None,
                lambda _: None,
            ).params
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), *found)


@pytest.mark.slow
def test_scores_are_the_probes_on_their_own_heads(frozen):
    init_fn = make_probe_init(frozen, PROBE, ROWS.length)
    params = [[init_fn(jax.random.key(2 * p + s)) for s in range(2)] for p in range(2)]
    stacked = jax.tree.map(
        lambda a, b: jnp.stack([a, b]),
        *(jax.tree.map(lambda a, b: jnp.stack([a, b]), *row) for row in params),
    )
    logits = StatePass(frozen, PROBE, 4).score(stacked, HEADS, ROWS, lambda _: None)
    assert logits.shape == (2, 2, 6, 2)
    batch = ROWS.take(np.arange(6), 6)
    for p in range(2):
        attention = make_attention(*(jnp.asarray(part[p]) for part in HEADS))
        states = frozen.compute_states(frozen.weights, batch, attention)
        for s in range(2):
            expected = PROBE.apply(
                {"params": params[p][s]["probe"]}, states, ROWS.mask, False
            )
            np.testing.assert_allclose(logits[p, s], expected, atol=1e-5)
