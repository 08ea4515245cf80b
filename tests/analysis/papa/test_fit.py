"""Training of probes: lanes do not mix, and a resumed training is the same."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from papa_models import NoStore, make_rows

from sweet_jax.analysis.papa import fit as fit_module
from sweet_jax.analysis.papa.fit import (
    DivergedError,
    Fit,
    FitSettings,
    compute_mean_loss,
    plan_rows,
)
from sweet_jax.training.checkpoint import Checkpoints
from sweet_jax.training.preemption import Interrupted

ROWS = make_rows(11)
SETTINGS = FitSettings(4, 3, {"probe": 0.05}, (0, 7), 2, 2)


def compute_loss(params, data, weights, batch, key):
    """A linear classifier of the slots' ids; `data` scales them, one per point."""
    x = data * batch.token_ids / 30.0 + 0.01 * jax.random.normal(key, ())
    return compute_mean_loss(x @ params["probe"]["kernel"] * weights, batch)


def init(key):
    return {"probe": {"kernel": jax.random.normal(key, (12, 2))}}


def train(settings=SETTINGS, points=(1.0, 2.0), store=None, on_steps=lambda *_: None):
    fit = Fit(compute_loss, ROWS, settings)
    state = fit.make_state(init, len(points))
    data, weights = jnp.array(points), jnp.ones(())
    return fit.run(state, data, weights, store or NoStore(), on_steps, lambda _: None)


@pytest.mark.slow
def test_points_and_seeds_train_as_if_alone():
    together = train()
    assert int(together.step) == 9
    for (p, point), (s, seed) in itertools.product(
        enumerate((1.0, 2.0)), enumerate((0, 7))
    ):
        alone = train(FitSettings(4, 3, {"probe": 0.05}, (seed,), 2, 9), (point,))
        np.testing.assert_allclose(
            together.params["probe"]["kernel"][p, s],
            alone.params["probe"]["kernel"][0, 0],
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.slow
def test_a_training_is_adamw_without_decay_at_a_constant_rate():
    settings = FitSettings(4, 2, {"probe": 0.05}, (3,), 100, 6)
    state = train(settings, (1.0,))
    plan, real = plan_rows(11, settings)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(0.05, weight_decay=0)
    )
    key = jax.random.key(3)
    params = init(jax.random.fold_in(key, 0))
    moments = optimizer.init(params)
    for step in range(6):
        rows = plan[step, 0]
        batch = ROWS.take(rows, 4)._replace(weights=real[step])
        step_key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
        gradient = jax.grad(compute_loss)(params, 1.0, 1.0, batch, step_key)
        updates, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(
        state.params["probe"]["kernel"][0, 0], params["probe"]["kernel"], atol=1e-5
    )


def test_every_epoch_has_each_row_once_in_the_order_of_the_seed():
    plan, real = plan_rows(11, SETTINGS)
    assert plan.shape == (9, 2, 4)
    for epoch, s in itertools.product(range(3), range(2)):
        part = slice(3 * epoch, 3 * epoch + 3)
        rows = plan[part, s][real[part] == 1]
        assert sorted(rows) == list(range(11))
    assert plan[0, 0].tolist() != plan[0, 1].tolist() != plan[3, 1].tolist()


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole, store = train(), Checkpoints(tmp_path, "run")
    asked = iter([False, True])

    class Hold:
        def __enter__(self):
            return lambda: next(asked, True)

        def __exit__(self, *_):
            pass

    with monkeypatch.context() as context:
        context.setattr(fit_module, "hold", Hold)
        with pytest.raises(Interrupted):
            train(store=store)
    [step] = store.list_steps()
    assert 0 < step < 9
    seen = []
    again = train(store=store, on_steps=lambda step, _: seen.append(step))
    assert seen == [*range(step + 2, 9, 2), 9]
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(DivergedError, match=r"loss of a probe is nan.*learning_rate"):
        train(points=(1.0, math.nan))


def test_rows_of_weight_0_do_not_count():
    batch = ROWS.take(np.arange(2), 2)
    longer = ROWS.take(np.arange(2), 4)
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    np.testing.assert_allclose(
        compute_mean_loss(logits[:2], batch), compute_mean_loss(logits, longer)
    )
