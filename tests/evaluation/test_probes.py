"""Probes are scikit-learn's regressions, and exits compute them but for the tanh."""

from typing import Any

import numpy as np
import pytest
from jaxtyping import Float, Int
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from sweet_jax.evaluation import probes
from sweet_jax.evaluation.probes import Probe, fit_probe

WIDTH = 6


def make_states(
    num_classes: int, count: int = 60, seed: int = 0
) -> tuple[Float[np.ndarray, "N D"], Int[np.ndarray, " N"]]:
    """Returns overlapping classes, far from 0, on unlike scales."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(count) % num_classes
    centres_CD = rng.normal(size=(num_classes, WIDTH))
    states_ND = centres_CD[labels_N] + rng.normal(size=(count, WIDTH))
    states_ND = 20 + states_ND * np.geomspace(0.1, 5, WIDTH)
    return states_ND.astype(np.float32), labels_N.astype(np.int32)


def run_exit(
    probe: Probe, states_ND: Float[np.ndarray, "N D"]
) -> Float[np.ndarray, "N C"]:
    """Returns the logits of the exit, computed as in exit_heads.py."""
    made = probe.make_exit()
    pooled_ND = np.tanh(states_ND @ made["pooler"]["kernel"] + made["pooler"]["bias"])
    return pooled_ND @ made["classifier"]["kernel"] + made["classifier"]["bias"]


@pytest.fixture
def ridge(monkeypatch):
    """Every probe is a ridge regression."""
    monkeypatch.setattr(probes, "_MOST_NUMBERS", 0)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_probe_is_the_logistic_regression_of_scikit_learn(num_classes, monkeypatch):
    monkeypatch.setattr(probes, "_choose_strength", lambda *_: 0.1)
    states_ND, labels_N = make_states(num_classes)
    scaler = StandardScaler().fit(states_ND.astype(np.float64))
    model = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000)
    z_ND = scaler.transform(states_ND.astype(np.float64))
    model.fit(z_ND, labels_N)
    logits_NC = fit_probe(states_ND, labels_N, num_classes).compute_logits(states_ND)
    wanted = model.decision_function(z_ND)
    if num_classes == 2:
        np.testing.assert_allclose(logits_NC[:, 1] - logits_NC[:, 0], wanted, atol=2e-3)
    else:
        np.testing.assert_allclose(logits_NC, wanted, atol=2e-3)
    np.testing.assert_array_equal(logits_NC.argmax(1), model.predict(z_ND))


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("noise", [0.0, 30.0])
def test_the_strength_is_the_best_for_rows_left_out(num_classes, noise, monkeypatch):
    """As scikit-learn's own search says, on the same folds."""
    states_ND, labels_N = make_states(num_classes, count=80)
    rng = np.random.default_rng(1)
    states_ND += noise * rng.normal(size=states_ND.shape).astype(np.float32)
    asked: list[float] = []
    fit = probes._fit_logistic

    def keep(z_ND: Any, labels_N: Any, strength: float) -> Any:
        asked.append(strength)
        return fit(z_ND, labels_N, strength)

    monkeypatch.setattr(probes, "_fit_logistic", keep)
    fit_probe(states_ND, labels_N, num_classes)
    order_N = np.random.default_rng(0).permutation(len(labels_N))
    search = GridSearchCV(
        LogisticRegression(max_iter=200),
        {"C": probes._STRENGTHS},
        scoring="neg_log_loss",
        cv=StratifiedKFold(4),
    )
    z_ND = StandardScaler().fit_transform(states_ND)
    search.fit(z_ND[order_N], labels_N[order_N])
    assert asked[-1] == search.best_params_["C"]
    # More noise, a stronger pull to 0.
    assert (asked[-1] < 0.1) == (noise > 0)


@pytest.mark.parametrize("counts", [(1, 1), (1, 1, 1), (2, 1), (2, 2), (9, 1, 1)])
def test_the_fewest_rows_have_a_probe(counts):
    labels_N = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    states_ND = np.eye(WIDTH, dtype=np.float32)[labels_N]
    logits_NC = fit_probe(states_ND, labels_N, len(counts)).compute_logits(states_ND)
    for c in range(len(counts)):  # A class's own rows are nearest to it.
        own = labels_N == c
        assert logits_NC[own, c].min() > logits_NC[~own, c].max()


def test_many_numbers_choose_the_strength_on_fewer_rows(monkeypatch):
    sizes: list[int] = []
    fit = probes._fit_logistic

    def keep(z_ND: Any, labels_N: Any, strength: float) -> Any:
        sizes.append(len(labels_N))
        return fit(z_ND, labels_N, strength)

    monkeypatch.setattr(probes, "_fit_logistic", keep)
    states_ND, labels_N = make_states(5, count=80)
    monkeypatch.setattr(probes, "_NUMBERS_OF_FOLDS", states_ND.size * 5)
    fit_probe(states_ND, labels_N, 5)
    assert set(sizes[:-1]) == {60}  # One fold; the others hold 60 rows, too.
    assert len(sizes) <= 1 + len(probes._STRENGTHS)
    sizes.clear()
    monkeypatch.setattr(probes, "_MOST_NUMBERS_OF_FOLDS", states_ND.size * 5 // 2)
    fit_probe(states_ND, labels_N, 5)
    assert max(sizes[:-1]) <= 31
    assert sizes[-1] == 80  # The probe itself is of all rows.


@pytest.mark.parametrize("num_classes", [2, 5])
def test_an_exit_is_its_probe_but_for_the_third_order_of_tanh(num_classes):
    states_ND, labels_N = make_states(num_classes)
    probe = fit_probe(states_ND, labels_N, num_classes)
    made = probe.make_exit()
    leaves = [leaf for part in made.values() for leaf in part.values()]
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    z_ND = (states_ND - probe.mean_D) / probe.spread_D
    bound_NC = np.abs(z_ND) ** 3 @ np.abs(probe.kernel_DC) / 27
    errors_NC = np.abs(run_exit(probe, states_ND) - probe.compute_logits(states_ND))
    assert (errors_NC <= bound_NC + 1e-4).all()
    assert (np.abs(z_ND) > 2).any()
    # Near the mean the factors cancel: the error falls with the third power.
    near_ND = (probe.mean_D + 0.03 * (states_ND - probe.mean_D)).astype(np.float32)
    np.testing.assert_allclose(
        run_exit(probe, near_ND), probe.compute_logits(near_ND), atol=1e-4
    )


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_dimension_that_hardly_varies_is_not_blown_up(noise, rng):
    states_ND, labels_N = make_states(2)
    states_ND[:, 2] = 1 + noise * rng.normal(size=len(states_ND))
    probe = fit_probe(states_ND, labels_N, 2)
    assert probe.spread_D.min() >= probe.spread_D.max() / 1000
    assert np.abs(probe.kernel_DC[2]).max() < 1e-3
    assert np.isfinite(run_exit(probe, states_ND)).all()


def test_equal_states_leave_the_shares_of_the_classes():
    labels_N = np.array([0, 0, 0, 1], np.int32)
    probe = fit_probe(np.ones((4, WIDTH), np.float32), labels_N, 2)
    logits_NC = run_exit(probe, np.ones((1, WIDTH), np.float32))
    np.testing.assert_allclose(special.softmax(logits_NC), [[0.75, 0.25]], atol=1e-3)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
@pytest.mark.parametrize("present", [(1, 3), (0, 1, 3)])
def test_a_class_without_rows_is_never_predicted(kind, present, request):
    if kind == "ridge":
        request.getfixturevalue("ridge")
    states_ND, labels_N = make_states(len(present))
    probe = fit_probe(states_ND, np.array(present)[labels_N], 4)
    far_ND = 5 * (states_ND - probe.mean_D) + probe.mean_D
    for rows_ND in (states_ND, far_ND):
        assert set(probe.compute_logits(rows_ND).argmax(1)) == set(present)


def test_the_scale_of_ridge_is_fitted_on_rows_left_out(ridge, monkeypatch):
    states_ND, labels_N = make_states(3, count=24)
    banks: list[Any] = []

    def keep(bank: Any, bounds: Any) -> np.ndarray:
        banks.append(bank)
        return np.array([0.25], np.float32)

    monkeypatch.setattr(probes, "fit_temperatures", keep)
    monkeypatch.setattr(probes, "_RIDGE_ALPHA", 3.0)
    probe = fit_probe(states_ND, labels_N, 3)
    z_ND = (states_ND - probe.mean_D) / probe.spread_D
    targets_NC = np.eye(3)[labels_N]
    design_ND = np.concatenate([z_ND, np.ones((24, 1))], axis=1)
    penalty_DD = np.diag([3.0] * WIDTH + [0.0])  # None on the bias.

    def solve(rows: Any) -> Float[np.ndarray, "D C"]:
        x, y = design_ND[rows], targets_NC[rows]
        return np.linalg.solve(x.T @ x + penalty_DD, x.T @ y)

    for i in range(24):
        without = design_ND[i] @ solve(np.arange(24) != i)
        np.testing.assert_allclose(banks[0].logits[i, 0], without, atol=1e-4)
    np.testing.assert_allclose(
        probe.compute_logits(states_ND),
        4 * design_ND @ solve(slice(None)),
        atol=1e-4,
    )


def test_ridge_takes_over_where_logistic_regression_is_slow(monkeypatch):
    states_ND, labels_N = make_states(5)
    logistic = fit_probe(states_ND, labels_N, 5)
    monkeypatch.setattr(probes, "_MOST_NUMBERS", states_ND.size * 5)
    same = fit_probe(states_ND, labels_N, 5)
    np.testing.assert_array_equal(same.kernel_DC, logistic.kernel_DC)
    monkeypatch.setattr(probes, "_MOST_NUMBERS", states_ND.size * 5 - 1)
    ridge = fit_probe(states_ND, labels_N, 5)
    assert (ridge.kernel_DC != logistic.kernel_DC).all()
    logits_NC = ridge.compute_logits(states_ND)
    likelihoods_N = special.log_softmax(logits_NC, 1)[np.arange(60), labels_N]
    assert likelihoods_N.mean() > np.log(1 / 5) + 0.2, "logits, not shares of 1"
