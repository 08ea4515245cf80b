"""scikit-learn's checks of an estimator, on SweetClassifier; run as a program.

    python tests/runs/numbers_as_texts.py ENCODER

Prints a line per check: its status, its name and what went wrong. Most checks fit on
numbers, which are no texts: on `SweetClassifier` they fail as they should, and on
`OnNumbers`, which writes numbers as words, they run. In a process of its own, since the
type checks of the tests refuse values that scikit-learn passes on purpose.
"""

import sys
import warnings
from typing import Any

import numpy as np
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from sweet_jax import SweetClassifier

# Of the tiny encoder's vocabulary.
WORDS = (
    "good", "fine", "great", "lovely", "superb", "warm", "bad", "poor", "awful", "dull",
    "grim", "cold", "the", "a", "film", "plot", "cast", "and", "with", "very", "scene",
)  # fmt: skip


class OnNumbers(SweetClassifier):
    """Reads each number as a word."""

    def fit(self, X: Any, y: Any) -> "OnNumbers":
        """Fits on texts that tell the numbers apart."""
        X = validate_data(self, X, ensure_min_samples=2)
        super().fit(_write(X), y)
        self.n_features_in_ = X.shape[1]
        return self

    def _take_texts(self, X: Any) -> list[str]:
        return _write(validate_data(self, X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # A tiny random encoder, one epoch.
        return tags


def _write(X_NK: np.ndarray) -> list[str]:
    # Close rows are different texts, too: `fit` needs a few of each class.
    places_NK = np.floor(X_NK * 64).astype(int) % len(WORDS)
    return [" ".join(WORDS[place] for place in row) for row in places_NK]


def main(encoder: str) -> None:
    """Checks both."""
    settings = {"layers": (0, 1), "buckets": 16}
    for kind in (SweetClassifier, OnNumbers):
        estimator = kind(
            encoder=encoder,
            num_epochs=1,
            max_length=16,
            batch_size=8,
            settings=settings,
        )
        for result in check_estimator(estimator, on_skip=None, on_fail=None):
            why = " ".join(str(result["exception"] or "").split())[:300]
            print(
                kind.__name__, result["status"], result["check_name"], why, flush=True
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
