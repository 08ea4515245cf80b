"""What people hand over to be answered: every form of a list, and no table."""

import numpy as np
import pandas as pd
import pytest

from sweet_jax.serving.texts import make_examples, take_texts

TEXTS = ["a", "b", "c"]
PAIRS = [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS,
        pd.Series(TEXTS),
        pd.Series(TEXTS, [9, 8, 9]),
        pd.Series(TEXTS, dtype="category"),
        np.array(TEXTS),
        np.array(TEXTS, object),
        np.array(TEXTS)[:, None],
    ],
)
def test_a_column_is_a_list(texts):
    taken = take_texts(texts, has_pairs=False)
    assert taken == TEXTS
    assert isinstance(taken, list)


def test_pairs():
    assert take_texts(np.array(PAIRS), has_pairs=True) == PAIRS
    assert take_texts(PAIRS[0], has_pairs=True) == [PAIRS[0]]
    assert take_texts(PAIRS[0], has_pairs=False) == PAIRS[0]
    assert take_texts(pd.Series(PAIRS), has_pairs=True) == PAIRS


def test_a_stream_stays_one():
    stream = iter(TEXTS)
    assert take_texts(stream, has_pairs=False) is stream


@pytest.mark.parametrize(
    "table", [pd.DataFrame({"text": TEXTS}), {"text": TEXTS}], ids=["frame", "dict"]
)
def test_a_table_is_refused_rather_than_its_column_names_answered(table):
    with pytest.raises(ValueError, match="give one column of it, such as table"):
        take_texts(table, has_pairs=False)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_missing_texts_are_refused_with_their_place(missing):
    series = pd.Series(["a", missing], index=["x", "y"], dtype=object)
    with pytest.raises(ValueError, match="the input at index y is missing"):
        take_texts(series, has_pairs=False)
    with pytest.raises(ValueError, match="input 11 is missing"):
        make_examples(["a", missing], False, "file", first=10)
