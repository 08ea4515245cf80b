"""Rows split off: stratified, fixed, and no text on both sides."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.data.examples import Examples
from sweet_jax.data.hold_out import (
    check_class_sizes,
    hold_out,
    order_stratified,
    share_out,
)
from sweet_jax.data.notes import list_keys


def make_rows(texts, labels, pairs=None):
    return Examples(
        tuple(texts),
        pairs,
        np.array(labels, np.int32),
        np.arange(len(labels), dtype=np.int64),
    )


def get_keys(rows):
    return set(list_keys(rows.texts, rows.pairs))


# Texts of few values repeat, within classes and across them, in case and blanks, too.
few_texts = st.lists(
    st.tuples(st.sampled_from("aAbBcdefghij "), st.integers(0, 3)), min_size=1
)


@given(few_texts, st.integers(1, 30), st.integers(0, 2))
def test_no_text_is_on_both_sides_and_no_row_is_lost(chosen, num_held, num_left):
    rows = make_rows([f"x {t} y" for t, _ in chosen], [c for _, c in chosen])
    kept, held = hold_out(rows, num_held, num_left)
    assert not get_keys(kept) & get_keys(held)
    ids = [*kept.row_ids.tolist(), *held.row_ids.tolist()]
    assert sorted(ids) == list(range(len(rows)))
    assert kept.row_ids.tolist() == sorted(kept.row_ids)
    for a, b in zip((kept, held), hold_out(rows, num_held, num_left), strict=True):
        assert a.texts == b.texts


@given(st.lists(st.integers(1, 300), min_size=2, max_size=9), st.floats(0.01, 0.9))
def test_each_class_gives_its_share_and_one_row_at_least(counts, share):
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = make_rows([f"text {i}" for i in range(len(labels))], labels)
    number = max(int(share * len(labels)), len(counts))
    _, held = hold_out(rows, number, 0)
    assert len(held) == number
    found = np.bincount(held.labels, minlength=len(counts))
    exact = np.array(counts) * number / len(labels)
    assert found.min() >= 1
    # Off its share by rounding, and by the rows that small classes are owed.
    assert np.all(np.abs(found - exact) < 1 + len(counts))
    assert np.all(found <= np.maximum(np.ceil(exact), 1))


def test_a_share_is_rounded_to_the_largest_rest():
    assert share_out(np.array([299, 201, 100]), 60).tolist() == [30, 20, 10]
    assert share_out(np.array([596, 2, 2]), 6).tolist() == [4, 1, 1]
    assert share_out(np.array([5, 0, 5]), 3).tolist() in ([2, 0, 1], [1, 0, 2])
    assert share_out(np.array([5, 5, 5]), 1).tolist() == [1, 1, 1]


def test_texts_count_once_and_a_frequent_one_is_no_test():
    """50 of 70 rows are one text: 20 % of the 21 texts are 4, not 14."""
    texts = ["the same"] * 50 + [f"a {i}" for i in range(10)]
    texts += [f"b {i}" for i in range(10)]
    rows = make_rows(texts, [0] * 60 + [1] * 10)
    _, held = hold_out(rows, 14, 2)
    assert "the same" not in held.texts
    assert np.bincount(held.labels).tolist() == [2, 2]


def test_pairs_differ_where_one_of_the_texts_does():
    rows = make_rows(["same"] * 20, [0, 1] * 10, tuple(f"other {i}" for i in range(20)))
    _, held = hold_out(rows, 4, 2)
    assert len(held) == 4
    single = dataclasses.replace(rows, pairs=None)
    assert len(hold_out(single, 4, 1)[1]) == 0


def test_a_class_with_too_few_texts_is_named_with_what_is_needed():
    texts = [*(f"a {i}" for i in range(9)), "b", "B ", "b", "c 1", "c 2"]
    rows = make_rows(texts, [0] * 9 + [1] * 3 + [2] * 2)
    message = (
        r"^x\.csv: 2 of 3 classes have too few different texts to split test and"
        r" calibration rows off \('b' has 1, 'c' has 2\): 3 are needed in each; .*label"
        r" column than 'kind'$"
    )
    with pytest.raises(ValueError, match=message):
        check_class_sizes(rows, ("a", "b", "c", "none"), "x.csv", "kind")
    check_class_sizes(rows.select(np.arange(9)), ("a", "b"), "x.csv", "")


label_arrays = st.lists(st.integers(0, 3), min_size=1, max_size=200).map(
    lambda values: np.array(values, np.int32)
)


@given(label_arrays, st.integers(0, 9))
def test_every_beginning_of_a_stratified_order_is_stratified(labels, seed):
    order = order_stratified(labels, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    num_classes = len(np.unique(labels))
    for label in np.unique(labels):
        share = (labels == label).mean()
        counts = np.cumsum(labels[order] == label)
        error = np.abs(counts - share * np.arange(1, len(labels) + 1))
        assert error.max() <= 1 + share * num_classes / 2


def test_a_stratified_order_is_random_within_a_class():
    labels = np.repeat([0, 1], 50)
    orders = [order_stratified(labels, np.random.default_rng(i)) for i in range(2)]
    assert orders[0].tolist() != orders[1].tolist()
    assert np.any(np.diff(orders[0][labels[orders[0]] == 0]) < 0)
