"""Exit criteria: their ranges, their causality and the rule of patience."""

import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from sweet_jax.exits import criteria
from sweet_jax.exits.criteria import (
    CRITERIA,
    compute_scores,
    make_thresholds,
    register_criterion,
)
from sweet_jax.settings import registries
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError

# Few shapes, because each compiles once; logits from ties to saturated softmax.
SHAPES = [(1, 1, 2), (5, 4, 2), (5, 3, 3), (5, 4, 7)]
LOGITS = st.sampled_from(SHAPES).flatmap(
    lambda shape: hnp.arrays(
        np.float32,
        shape,
        elements=st.one_of(
            st.sampled_from([0.0, 1.0, 2.0]),
            # XLA takes subnormal numbers for 0.
            st.floats(-100, 100, width=32, allow_subnormal=False),
        ),
    )
)
fast = hypothesis.settings(max_examples=40)


def _make_lte(logits_NEC: np.ndarray) -> np.ndarray:
    """Scores of learning to exit, some 0 and some 1, each of its exit's logits."""
    return np.clip(logits_NEC[:, :, 0] / 2, 0, 1).astype(np.float32)


def _oracle(criterion: str, logits_NEC: np.ndarray) -> np.ndarray:
    """Each score by its definition, one example and exit at a time, in float64."""
    scores_NE = np.zeros(logits_NEC.shape[:2])
    for n, i in np.ndindex(scores_NE.shape):
        probs_C = special.softmax(logits_NEC[n, i].astype(np.float64))
        if criterion == "confidence":
            scores_NE[n, i] = max(probs_C)
        elif criterion == "entropy":
            scores_NE[n, i] = 1 - stats.entropy(probs_C) / math.log(len(probs_C))
        elif criterion == "margin":
            second, first = sorted(probs_C)[-2:]
            scores_NE[n, i] = first - second
        elif criterion == "lte":
            scores_NE[n, i] = _make_lte(logits_NEC)[n, i]
        else:
            answers = [int(np.argmax(logits_C)) for logits_C in logits_NEC[n, : i + 1]]
            runs = [len(list(run)) for _, run in itertools.groupby(answers)]
            scores_NE[n, i] = runs[-1]
    return scores_NE


@pytest.mark.parametrize("criterion", registries.BUILTIN_CRITERIA)
@fast
@hypothesis.given(logits_NEC=LOGITS)
def test_scores_follow_their_definitions(criterion, logits_NEC):
    scores_NE = np.asarray(compute_scores(criterion, logits_NEC, _make_lte(logits_NEC)))
    assert scores_NE.dtype == np.float32
    np.testing.assert_allclose(scores_NE, _oracle(criterion, logits_NEC), atol=2e-6)


@pytest.mark.parametrize("criterion", registries.BUILTIN_CRITERIA)
@fast
@hypothesis.given(logits_NEC=LOGITS)
def test_scores_lie_in_their_range_exactly(criterion, logits_NEC):
    _, num_exits, num_classes = logits_NEC.shape
    # Scaled scores lie in [0, 1]; even others would not leave it.
    lte_NE = 3 * _make_lte(logits_NEC) - 1
    scores_NE = np.asarray(compute_scores(criterion, logits_NEC, lte_NE))
    thresholds_T = make_thresholds(criterion, 11, num_classes, num_exits)
    assert np.all(scores_NE >= thresholds_T[0])
    assert np.all(scores_NE <= thresholds_T[-1])


@pytest.mark.parametrize("num_classes", [2, 3, 6, 7, 12])
def test_equal_logits_reach_the_lowest_threshold(num_classes):
    # Without its clip, entropy rounds to just below 0 for 6, 7 and 12 equal logits.
    logits_11C = np.full((1, 1, num_classes), 0.3, np.float32)
    for criterion in registries.BUILTIN_CRITERIA:
        lte_11 = np.zeros((1, 1), np.float32)
        score = np.asarray(compute_scores(criterion, logits_11C, lte_11))[0, 0]
        assert score >= make_thresholds(criterion, 11, num_classes, 1)[0]


@pytest.mark.parametrize("criterion", registries.BUILTIN_CRITERIA)
@fast
@hypothesis.given(logits_NEC=LOGITS, data=st.data())
def test_an_exit_sees_no_later_exit(criterion, logits_NEC, data):
    first_changed = data.draw(st.integers(0, logits_NEC.shape[1]))
    changed_NEC = logits_NEC.copy()
    changed_NEC[:, first_changed:] = changed_NEC[:, first_changed:, ::-1] * 3 + 1
    np.testing.assert_array_equal(
        compute_scores(criterion, changed_NEC, _make_lte(changed_NEC))[
            :, :first_changed
        ],
        compute_scores(criterion, logits_NEC, _make_lte(logits_NEC))[:, :first_changed],
    )


@fast
@hypothesis.given(logits_NEC=LOGITS)
def test_patience_starts_at_1_and_grows_by_1_or_starts_again(logits_NEC):
    scores_NE = np.asarray(compute_scores("patience", logits_NEC))
    np.testing.assert_array_equal(scores_NE[:, 0], 1)
    same_NE = np.diff(logits_NEC.argmax(axis=2), axis=1) == 0
    expected_NE = np.where(same_NE, scores_NE[:, :-1] + 1, 1)
    np.testing.assert_array_equal(scores_NE[:, 1:], expected_NE)


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_threshold_t_of_patience_is_pabees_patience_t_minus_1(rng, patience):
    """PABEE's loop: a counter of exits that agree with the one before."""
    logits_NEC = rng.normal(size=(200, 5, 2)).astype(np.float32)
    answers_NE = logits_NEC.argmax(axis=2)
    expected = []
    for answers_E in answers_NE:
        counter, leaves = 0, 4
        for i in range(1, 5):
            counter = counter + 1 if answers_E[i] == answers_E[i - 1] else 0
            if counter == patience:
                leaves = i
                break
        expected.append(leaves)
    scores_NE = np.asarray(compute_scores("patience", logits_NEC))
    reached_NE = scores_NE >= patience + 1
    reached_NE[:, -1] = True
    np.testing.assert_array_equal(reached_NE.argmax(axis=1), expected)


def test_sure_exits_score_1_and_infinite_differences_are_no_nan():
    logits_NEC = np.array([[[3e38, -3e38, 0.0]]], np.float32)
    for criterion in ("confidence", "entropy", "margin"):
        assert float(compute_scores(criterion, logits_NEC)[0, 0]) == 1.0


def test_grids_are_those_of_the_released_code():
    np.testing.assert_array_equal(
        make_thresholds("confidence", 11, 2, 4),
        np.arange(50, 101, 5).astype(np.float32) / np.float32(100),
    )
    thirds = make_thresholds("confidence", 11, 3, 4)
    np.testing.assert_allclose(thirds[:2], [1 / 3, 0.4], rtol=1e-7)
    assert thirds[-1] == 1.0
    np.testing.assert_array_equal(make_thresholds("entropy", 3, 7, 4), [0, 0.5, 1])
    np.testing.assert_array_equal(make_thresholds("patience", 11, 2, 4), [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("criterion", "threshold", "allowed"),
    [
        ("confidence", 0.3, "0.5 to 1"),
        ("confidence", 1.01, "0.5 to 1"),
        ("entropy", -0.1, "0 to 1"),
        ("margin", 2.0, "0 to 1"),
        ("lte", 1.5, "0 to 1"),
        ("patience", 0.0, "1 to 4"),
        ("patience", 5.0, "1 to 4"),
        ("patience", math.nan, "1 to 4"),
        ("margin", -math.inf, "0 to 1"),
    ],
)
def test_a_threshold_outside_the_range_is_refused_in_one_line(
    criterion, threshold, allowed
):
    with pytest.raises(ValueError, match=f"allowed is {allowed}, or inf") as error:
        criteria.check_threshold(criterion, threshold, 2, 4)
    assert "\n" not in str(error.value)


def test_the_ends_of_the_range_and_full_are_allowed():
    criteria.check_threshold("confidence", 0.33333333, 3, 4)  # 1/3 in float32
    criteria.check_threshold("confidence", 1 / 3, 3, 4)
    criteria.check_threshold("confidence", 1.0, 3, 4)
    criteria.check_threshold("patience", 4.0, 3, 4)
    criteria.check_threshold("patience", criteria.FULL, 3, 4)


def test_unknown_criteria_and_single_classes_are_refused():
    with pytest.raises(ValueError, match="did you mean entropy"):
        compute_scores("entropie", np.zeros((1, 1, 2), np.float32))
    with pytest.raises(ValueError, match="at least 2 classes"):
        compute_scores("margin", np.zeros((1, 1, 1), np.float32))


def test_every_criterion_of_the_settings_has_its_function():
    for criterion in registries.BUILTIN_CRITERIA:
        assert callable(CRITERIA.lookup(criterion).scores_fn)


def test_lte_is_refused_without_scores():
    with pytest.raises(
        ValueError, match=r"train with exits.learn_to_exit=True, or use confidence"
    ) as error:
        compute_scores("lte", np.zeros((1, 2, 2), np.float32))
    assert "\n" not in str(error.value)
    for criterion in registries.LOGIT_CRITERIA:
        criteria.check_lte(criterion, has_lte=False)


@pytest.mark.usefixtures("registries")
def test_a_registered_criterion_is_like_ours():
    @register_criterion("gini")
    def gini(logits_NEC):
        return (jax.nn.softmax(logits_NEC) ** 2).sum(axis=-1)

    logits_NEC = np.array([[[0, 0], [0, 50]]], np.float32)
    np.testing.assert_allclose(compute_scores("gini", logits_NEC), [[0.5, 1]])
    np.testing.assert_array_equal(make_thresholds("gini", 3, 2, 2), [0, 0.5, 1])
    settings = from_config_dict({"evaluate": {"criteria": ["gini", "margin"]}})
    assert settings.evaluate.criteria == ("gini", "margin")
    with pytest.raises(SettingsError, match=r"allowed are confidence.*lte, gini"):
        from_config_dict({"evaluate": {"criteria": ["giny"]}})


@pytest.mark.usefixtures("registries")
def test_a_replaced_criterion_leaves_no_trace_of_the_old_one():
    logits_NEC = np.zeros((1, 1, 2), np.float32)
    for value in (0.25, 0.75):
        register_criterion(
            "constant",
            lambda logits, value=value: jnp.full(logits.shape[:2], value),
            replace=True,
        )
        assert compute_scores("constant", logits_NEC)[0, 0] == value


@pytest.mark.usefixtures("registries")
def test_a_registered_criterion_may_have_a_range_of_its_own():
    register_criterion(
        "agreement",
        lambda logits: compute_scores("patience", logits),
        score_range=lambda classes, exits: (0, exits),
        counts=True,
    )
    np.testing.assert_array_equal(make_thresholds("agreement", 11, 3, 2), [0, 1, 2])
