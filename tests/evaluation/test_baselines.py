"""Baselines: fitted on training rows alone, by models that scikit-learn has."""

import dataclasses

import numpy as np
import pytest
from scipy import special
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from sweet_jax.data.examples import Examples
from sweet_jax.evaluation import baselines
from sweet_jax.evaluation.baselines import (
    answer_majority,
    classify_states,
    classify_texts,
    count_numbers,
    measure_baselines,
)
from sweet_jax.evaluation.probes import fit_probe

WORDS = ("red", "green", "blue", "grey")


def make_states(num_classes: int, count: int, seed: int, shift: float = 1.0):
    """Returns states [N, 6] whose mean depends on the class, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    centres = np.random.default_rng(9).normal(0, shift, (num_classes, 6))
    states = centres[labels] + rng.normal(5, 1, (count, 6))
    states[:, 0] *= 100  # Standardising must make up for it.
    return states.astype(np.float32), labels.astype(np.int32)


def make_texts(labels: np.ndarray, seed: int, pairs: bool = False) -> Examples:
    """Returns texts that name the class; the second text names another one."""
    rng = np.random.default_rng(seed)
    texts = [f"a {WORDS[c]} {rng.choice(WORDS) if pairs else 'one'}" for c in labels]
    others = [f"a {WORDS[(c + 1) % len(WORDS)]} one" for c in labels]
    labels = np.asarray(labels, np.int32)
    return Examples(
        tuple(texts),
        tuple(others) if pairs else None,
        labels,
        np.arange(len(labels), dtype=np.int64),
    )


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("large", [False, True])
def test_a_model_of_words_is_scikit_learns(monkeypatch, num_classes, large):
    labels, truth = (np.arange(n) % num_classes for n in (90, 40))
    train, test = (make_texts(y, i, pairs=True) for i, y in enumerate((labels, truth)))
    train, test = (dataclasses.replace(rows, pairs=None) for rows in (train, test))
    model = LogisticRegression(C=10, max_iter=200)
    if large:
        monkeypatch.setattr(baselines, "_MOST_NUMBERS", 0)
        model = RidgeClassifier(alpha=1.0)
    found = classify_texts(train, test, num_classes)
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=baselines.TOKEN_PATTERN)
    reference = make_pipeline(words, model).fit(train.texts, labels)
    assert found.model == ("ridge" if large else "logistic regression")
    np.testing.assert_array_equal(found.predictions, reference.predict(test.texts))
    assert 1 < len(set(found.predictions.tolist())) <= num_classes
    probabilities = np.exp(found.log_probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), found.predictions)
    if not large:
        np.testing.assert_allclose(
            probabilities, reference.predict_proba(test.texts), atol=1e-3
        )


def test_a_model_of_states_is_the_probe_that_exits_start_from():
    train, labels = make_states(3, 90, seed=0, shift=0.5)
    test, _ = make_states(3, 40, seed=1, shift=0.5)
    probe = fit_probe(train, labels, 3)
    found = classify_states(probe, labels, test)
    logits = probe.compute_logits(test)
    assert found.model == probe.model
    np.testing.assert_array_equal(found.predictions, logits.argmax(axis=1))
    np.testing.assert_allclose(
        found.log_probabilities, special.log_softmax(logits, axis=1), atol=1e-9
    )


def test_numbers_of_an_iteration_decide_on_the_model():
    dense = np.zeros((100, 10), np.float32)
    assert count_numbers(dense, 2) == 100 * 10 + 20 * 10
    assert count_numbers(dense, 5) == 5 * (100 * 10 + 20 * 10)
    words = TfidfVectorizer().fit_transform(["good film", "bad film"])
    assert count_numbers(words, 3) == 3 * (4 + 20 * 3)


def test_what_is_separable_is_learned_and_scored_by_the_metric():
    (train, labels), (test, truth) = (
        make_states(4, n, seed, shift=10) for n, seed in ((80, 0), (40, 1))
    )
    found = measure_baselines(
        "macro_f1",
        4,
        make_texts(labels, 0),
        make_texts(truth, 1),
        (1, 3),
        [fit_probe(x, labels, 4) for x in (train, np.zeros_like(train))],
        [test, np.zeros_like(test)],
    )
    assert found["tfidf"] == {
        "model": "logistic regression",
        "score": 1.0,
        "accuracy": 1.0,
    }
    good, useless = found["frozen"]
    assert (good["exit"], good["layer"], good["score"]) == (0, 1, 1.0)
    # Constant states tell nothing: one class for all, of which a quarter is right.
    assert (useless["layer"], useless["accuracy"]) == (3, 0.25)
    expected = f1_score(truth, np.zeros(40), average="macro", zero_division=0)
    assert useless["score"] == pytest.approx(expected)
    assert found["majority"] == pytest.approx(
        {"model": "constant", "score": expected, "accuracy": 0.25}
    )


def test_majority_is_the_most_frequent_training_class():
    found = answer_majority(np.array([2, 0, 2, 1]), 3, num_classes=4)
    assert found.predictions.tolist() == [2, 2, 2]
    np.testing.assert_allclose(
        np.exp(found.log_probabilities[0]), [0.25, 0.25, 0.5, 0], atol=1e-9
    )
    assert found.score("matthews", np.array([2, 2, 0])) == {
        "score": 0.0,
        "accuracy": pytest.approx(2 / 3),
    }


def test_the_two_texts_of_a_pair_have_columns_of_their_own():
    labels = np.arange(60) % 2
    train, test = (make_texts(labels, seed, pairs=True) for seed in (0, 1))
    found = classify_texts(train, test, 2)
    assert (found.predictions == labels).all()
    # The order of the texts alone tells these classes apart.
    order = Examples(
        tuple("good" if c else "bad" for c in labels),
        tuple("bad" if c else "good" for c in labels),
        train.labels,
        train.row_ids,
    )
    assert (classify_texts(order, order, 2).predictions == labels).all()


def test_texts_of_marks_have_words_and_texts_of_none_are_the_majority():
    labels = np.array([0, 1, 1] * 10, np.int32)
    ids = np.arange(30, dtype=np.int64)
    marks = Examples(
        tuple(":) !?"[2 * c : 2 * c + 2] for c in labels), None, labels, ids
    )
    faces = Examples(tuple("😀🎉"[c] for c in labels), None, labels, ids)
    for texts in (marks, faces):
        assert (classify_texts(texts, texts, 2).predictions == labels).all()
    empty = Examples(("",) * 30, None, labels, ids)
    found = classify_texts(empty, empty, 2)
    assert (found.model, set(found.predictions.tolist())) == ("constant", {1})


def test_a_class_without_training_rows_is_never_predicted():
    train, labels = make_states(3, 60, seed=0)
    kept = labels != 1
    probe = fit_probe(train[kept], labels[kept], num_classes=4)
    found = classify_states(probe, labels[kept], train)
    assert set(found.predictions.tolist()) == {0, 2}
    assert found.log_probabilities.shape == (60, 4)
    assert found.log_probabilities[:, [1, 3]].max() < -20
