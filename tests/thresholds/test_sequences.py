"""Sequences of thresholds, and the cascade they are replayed in."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from sweet_jax.evaluation.cascade import choose_exits
from sweet_jax.exits.criteria import FULL
from sweet_jax.thresholds.risk_control import RISKS, mark_errors
from sweet_jax.thresholds.sequences import (
    count_errors,
    find_exits,
    make_global_path,
    make_path_per_exit,
)

fast = hypothesis.settings(max_examples=30)


@st.composite
def cascades(draw):
    """(scores, predictions, labels, a generator), with many ties."""
    seed = draw(st.integers(0, 2**32 - 1))
    num_rows, num_exits = draw(st.sampled_from([(1, 1), (1, 3), (12, 2), (40, 4)]))
    levels = draw(st.sampled_from([2, 5, 1000]))
    rng = np.random.default_rng(seed)
    return (
        (rng.integers(0, levels, (num_rows, num_exits)) / levels).astype(np.float32),
        rng.integers(0, 3, (num_rows, num_exits)),
        rng.integers(0, 3, num_rows),
        rng,
    )


def make_costs(num_exits: int) -> np.ndarray:
    return np.arange(1, num_exits + 1) / num_exits


def make_path(kind: str, scores_NE, errors_NE) -> np.ndarray:
    if kind == "global":
        return make_global_path(scores_NE, 0.0)
    return make_path_per_exit(scores_NE, errors_NE, make_costs(scores_NE.shape[1]), 0.0)


@fast
@hypothesis.given(cascade=cascades(), risk=st.sampled_from(sorted(RISKS)))
def test_errors_are_those_of_a_loop_over_examples(cascade, risk):
    scores_NE, predictions_NE, labels_N, rng = cascade
    num_exits = scores_NE.shape[1]
    values = [FULL, 0.0, *np.unique(scores_NE).tolist()]
    for width in (1, num_exits - 1):
        path_TK = rng.choice(values, (6, width)).astype(np.float32)
        expected = []
        for thresholds_K in path_TK:
            wrong = 0
            for scores_E, answers_E, label in zip(
                scores_NE, predictions_NE, labels_N, strict=True
            ):
                chosen = num_exits - 1
                for i in range(num_exits - 1):
                    if scores_E[i] >= thresholds_K[i if width > 1 else 0]:
                        chosen = i
                        break
                answer, full = answers_E[chosen], answers_E[-1]
                if risk == "disagreement":
                    wrong += bool(answer != full)
                else:
                    wrong += bool(full == label and answer != label)
            expected.append(wrong)
        errors_NE = mark_errors(risk, predictions_NE, labels_N)
        got = count_errors(scores_NE, errors_NE, path_TK)
        np.testing.assert_array_equal(got, expected)


@fast
@hypothesis.given(cascade=cascades())
def test_one_threshold_leaves_where_the_cascade_does(cascade):
    scores_NE = cascade[0]
    thresholds = np.array([0.0, 0.3, 0.5, 0.8, FULL], np.float32)
    exits_TN = np.asarray(choose_exits(scores_NE, thresholds))
    got_TN = find_exits(scores_NE, thresholds[:, None])
    np.testing.assert_array_equal(got_TN, exits_TN)


def test_thresholds_are_compared_in_float32():
    # 0.3 in float64 is below its float32, which is the score.
    scores_NE = np.array([[0.3, 1.0]], np.float32)
    assert find_exits(scores_NE, np.array([[0.3]])).tolist() == [[0]]


@fast
@hypothesis.given(cascade=cascades(), risk=st.sampled_from(sorted(RISKS)))
def test_the_full_model_never_errs_and_errors_bound_the_loss(cascade, risk):
    scores_NE, predictions_NE, labels_N, _ = cascade
    errors_NE = mark_errors(risk, predictions_NE, labels_N)
    full = np.full((1, 1), FULL)
    assert count_errors(scores_NE, errors_NE, full) == 0
    path_T1 = make_global_path(scores_NE, 0.0)
    right_NE = predictions_NE == labels_N[:, None]
    errors_T = count_errors(scores_NE, errors_NE, path_T1)
    rows_1N = np.arange(len(scores_NE))[None]
    right_T = right_NE[rows_1N, find_exits(scores_NE, path_T1)].sum(axis=1)
    assert np.all(right_NE[:, -1].sum() - right_T <= errors_T)


@fast
@hypothesis.given(
    cascade=cascades(),
    risk=st.sampled_from(sorted(RISKS)),
    kind=st.sampled_from(["global", "per_exit"]),
)
def test_paths_fall_to_exit_0_and_cost_falls_on_any_rows(cascade, risk, kind):
    scores_NE, predictions_NE, labels_N, rng = cascade
    num_exits = scores_NE.shape[1]
    errors_NE = mark_errors(risk, predictions_NE, labels_N)
    path_TK = make_path(kind, scores_NE, errors_NE)
    assert path_TK.shape[1] == (1 if kind == "global" else num_exits - 1)
    with np.errstate(invalid="ignore"):  # inf - inf, of a threshold not yet lowered
        assert not np.any(np.diff(path_TK, axis=0) > 0)
    costs_E = make_costs(num_exits)
    for rows_NE in (scores_NE, rng.random(scores_NE.shape)):
        costs_T = costs_E[find_exits(rows_NE, path_TK)].mean(axis=1)
        assert np.all(np.diff(costs_T) <= 1e-12)
        assert costs_T[-1] == costs_E[0]
    # Each step of a path per exit saves something on the rows it was made of, but for
    # the last, which reaches rows yet to come.
    if kind == "per_exit":
        on_fit_T = costs_E[find_exits(scores_NE, path_TK[:-1])].mean(axis=1)
        assert np.all(np.diff(on_fit_T, prepend=costs_E[-1]) < 0)


def test_a_global_path_holds_every_threshold_that_changes_the_cascade():
    scores_NE = np.array([[0.6, 0.4, 0.99], [0.7, 0.8, 0.98]], np.float32)
    expected = np.array([0.8, 0.7, 0.6, 0.5], np.float32)[:, None]
    np.testing.assert_array_equal(make_global_path(scores_NE, 0.5), expected)


def test_long_paths_are_thinned_and_keep_their_ends(rng):
    scores_NE = rng.random((4000, 4)).astype(np.float32)
    path_T1 = make_global_path(scores_NE, 0.0)
    best_NE = np.maximum.accumulate(scores_NE[:, :3], axis=1)
    assert len(path_T1) == 1500
    assert path_T1[0, 0] == best_NE.max()
    assert path_T1[-1, 0] == 0
    errors_NE = rng.random((4000, 4)) < 0.1
    assert len(make_path_per_exit(scores_NE, errors_NE, make_costs(4), 0.0)) <= 1503


def test_thresholds_per_exit_spare_the_exit_that_errs():
    # Exit 0 is always wrong, exit 1 always right, and both are equally sure.
    scores_NE = np.tile(np.linspace(0.5, 0.9, 50, dtype=np.float32)[:, None], (1, 3))
    errors_NE = np.tile([[True, False, False]], (50, 1))
    path_TK = make_path_per_exit(scores_NE, errors_NE, make_costs(3), 0.5)
    errors_T = count_errors(scores_NE, errors_NE, path_TK)
    assert errors_T[:50].tolist() == [0] * 50
    assert np.all(path_TK[:50, 0] == FULL)
    assert path_TK[49, 1] == 0.5
    assert count_errors(scores_NE, errors_NE, make_global_path(scores_NE, 0.5))[0] == 1
