"""Baselines of a run: what simple models reach with the same rows, in seconds.

The majority class, a linear model of tf-idf word counts, and for every exit a linear
model of the states that its pooler reads in the pretrained encoder. Only training rows
are fitted, and no other row chooses anything.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy import sparse, special
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from threadpoolctl import threadpool_limits

from sweet_jax.data.examples import Examples
from sweet_jax.evaluation.metrics import score_predictions
from sweet_jax.evaluation.probes import LOGISTIC, RIDGE, Probe

CONSTANT = "constant"
# Of tf-idf weights: inverse strength of logistic regression, as in scikit-learn, and
# strength of ridge regression.
TFIDF_C, TFIDF_ALPHA = 10.0, 1.0
# Words, and every other mark by itself: a text of emojis is not empty.
TOKEN_PATTERN = r"\w+|[^\w\s]"
_MOST_ITERATIONS = 200
# Numbers per iteration of logistic regression: about 0.1 s on one core. With more, all
# iterations would take more than about 10 s.
_MOST_NUMBERS = 100_000_000
# Vectors of the coefficients' size that lbfgs works on in one iteration.
_LBFGS_VECTORS = 20
# Lower bound of a class probability, so that its logarithm is finite.
_TINY = 1e-12

# Rows of numbers [N, D], an array or one of scipy's sparse matrices; without a type,
# since that of the matrices lacks their attributes.
Features: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of a linear model.

    Attributes:
        model: its kind: LOGISTIC, RIDGE, or CONSTANT where nothing could be learned.
        predictions: a class for each row.
        log_probabilities: of all classes; those of ridge regression are its outputs,
            read as probabilities.
    """

    model: str
    predictions: Int[np.ndarray, " N"]
    log_probabilities: Float64[np.ndarray, "N C"]

    def score(self, metric: str, labels_N: Int[np.ndarray, " N"]) -> dict[str, float]:
        """Returns the score by the run's metric, and the accuracy."""
        names = {"score": metric, "accuracy": "accuracy"}
        return {
            name: score_predictions(
                by, labels_N, self.predictions, None, self.log_probabilities
            )
            for name, by in names.items()
        }


def measure_baselines(
    metric: str,
    num_classes: int,
    train: Examples,
    test: Examples,
    exit_layers: Sequence[int],
    probes: Sequence[Probe],
    test_states: Sequence[Float[np.ndarray, "K D"]],
) -> dict[str, Any]:
    """Returns each baseline's kind of model, its score and accuracy on the test rows.

    Args:
        metric: the run's metric.
        num_classes: number of classes C.
        train: the training rows; nothing else is fitted on.
        test: the test rows.
        exit_layers: the layer that each exit reads.
        probes: per exit, the linear model of the frozen states of the training rows.
        test_states: per exit, the frozen states of the test rows.
    """
    majority = answer_majority(train.labels, len(test), num_classes)
    tfidf = classify_texts(train, test, num_classes)
    states = [
        classify_states(probe, train.labels, states_KD)
        for probe, states_KD in zip(probes, test_states, strict=True)
    ]

    def describe(answers: Answers) -> dict[str, Any]:
        return {"model": answers.model, **answers.score(metric, test.labels)}

    return {
        "majority": describe(majority),
        "tfidf": describe(tfidf),
        "frozen": [
            {"exit": i, "layer": layer, **describe(answers)}
            for i, (layer, answers) in enumerate(zip(exit_layers, states, strict=True))
        ],
    }


def answer_majority(
    labels_N: Int[np.ndarray, " N"], num_rows: int, num_classes: int
) -> Answers:
    """Returns the most frequent class, and the shares of all, for every row."""
    counts_C = np.bincount(labels_N, minlength=num_classes)
    shares_C = np.log(np.maximum(counts_C / counts_C.sum(), _TINY))
    return Answers(
        CONSTANT,
        np.full(num_rows, counts_C.argmax()),
        np.tile(shares_C, (num_rows, 1)),
    )


def classify_states(
    probe: Probe,
    labels_N: Int[np.ndarray, " N"],
    test_KD: Float[np.ndarray, "K D"],
) -> Answers:
    """Returns a linear probe's answers from states.

    Args:
        probe: the linear model.
        labels_N: classes of the rows that it was fitted on.
        test_KD: states.
    """
    logits_KC = probe.compute_logits(test_KD)
    # A class without a training row is never predicted.
    logits_KC[:, ~np.isin(np.arange(logits_KC.shape[1]), labels_N)] = -np.inf
    shares_KC = np.maximum(special.softmax(logits_KC, axis=1), _TINY)
    return Answers(probe.model, logits_KC.argmax(axis=1), np.log(shares_KC))


def classify_texts(train: Examples, test: Examples, num_classes: int) -> Answers:
    """Returns a linear model's answers from tf-idf weights of words.

    The texts are not cut. The two texts of a pair have words and columns of their own.
    """
    columns = [(train.texts, test.texts)]
    if train.pairs is not None and test.pairs is not None:
        columns.append((train.pairs, test.pairs))
    blocks = [
        block for column in columns if (block := _weigh_words(*column)) is not None
    ]
    if not blocks:
        return answer_majority(train.labels, len(test), num_classes)
    train_ND, test_KD = (
        sparse.csr_matrix(sparse.hstack(parts)) for parts in zip(*blocks, strict=True)
    )
    return _classify_words(train_ND, train.labels, test_KD, num_classes)


def _weigh_words(
    train: Sequence[str], test: Sequence[str]
) -> tuple[Features, Features] | None:
    """Returns tf-idf weights of the words; None if the training texts have no word."""
    vectorizer: Any = TfidfVectorizer(sublinear_tf=True, token_pattern=TOKEN_PATTERN)
    if not any(map(vectorizer.build_analyzer(), train)):
        return None
    return vectorizer.fit_transform(train), vectorizer.transform(test)


def _classify_words(
    train_ND: Features,
    labels_N: Int[np.ndarray, " N"],
    test_KD: Features,
    num_classes: int,
) -> Answers:
    """Fits logistic regression, or ridge regression where that would take long."""
    present = np.unique(labels_N)
    num_rows = test_KD.shape[0]
    if len(present) < 2:
        return answer_majority(labels_N, num_rows, num_classes)
    model: Any
    if count_numbers(train_ND, len(present)) > _MOST_NUMBERS:
        kind, model = RIDGE, RidgeClassifier(alpha=TFIDF_ALPHA).fit(train_ND, labels_N)
        # Ridge regression predicts 1 for a row's class and -1 for all others.
        decision = model.decision_function(test_KD)
        if decision.ndim == 1:
            decision = np.stack([-decision, decision], axis=1)
        shares = np.maximum((decision + 1) / 2, _TINY)
        shares = shares / shares.sum(axis=1, keepdims=True)
    else:
        kind, model = LOGISTIC, LogisticRegression(C=TFIDF_C, max_iter=_MOST_ITERATIONS)
        with warnings.catch_warnings():
            # The number of iterations is part of the baseline.
            warnings.simplefilter("ignore", ConvergenceWarning)
            with threadpool_limits(1):  # As in probes.py.
                model.fit(train_ND, labels_N)
        shares = model.predict_proba(test_KD)
    shares_KC = np.full((num_rows, num_classes), _TINY)
    # A class without a training row is never predicted.
    shares_KC[:, present] = np.maximum(shares, _TINY)
    return Answers(kind, model.predict(test_KD), np.log(shares_KC))


def count_numbers(features_ND: Features, num_classes: int) -> int:
    """Returns how many numbers an iteration of logistic regression works on."""
    _, num_features = features_ND.shape
    stored = features_ND.nnz if sparse.issparse(features_ND) else features_ND.size
    columns = num_classes if num_classes > 2 else 1
    return columns * (stored + _LBFGS_VECTORS * num_features)
