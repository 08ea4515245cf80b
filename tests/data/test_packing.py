"""Packed rows hold every text once, whole, and are nearly full."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.arrays import count_texts
from sweet_jax.data.packing import find_tokens, make_packed_batch, pack_texts
from sweet_jax.data.tokenize import Tokenized

WIDTHS = (16, 24, 40)


def make_rows(lengths: list[int]) -> Tokenized:
    """Returns texts whose tokens are all different."""
    offsets = np.cumsum([0, *lengths])
    return Tokenized(
        token_ids=np.arange(1, offsets[-1] + 1, dtype=np.int32),
        type_ids=np.arange(offsets[-1], dtype=np.int32) % 2,
        offsets=offsets,
        labels=np.zeros(len(lengths), np.int32),
        row_ids=np.arange(len(lengths)),
        truncated_rows=0,
    )


@given(st.lists(st.integers(1, 40), max_size=60))
def test_every_text_has_places_of_its_own(lengths):
    lengths_N = np.array(lengths, np.int64)
    packing = pack_texts(lengths_N, WIDTHS)
    starts = np.cumsum(packing.widths) - packing.widths
    places = find_tokens(starts[packing.rows] + packing.columns, lengths_N)
    assert len(np.unique(places)) == len(places)
    ends = packing.columns + lengths_N
    assert (ends <= packing.widths[packing.rows]).all()
    assert set(packing.widths.tolist()) <= set(WIDTHS)
    for row, width in enumerate(packing.widths.tolist()):
        texts = np.flatnonzero(packing.rows == row)
        assert len(texts) <= count_texts(width)
        # Without gaps, and numbered in the order of their places.
        texts = texts[np.argsort(packing.columns[texts])]
        np.testing.assert_array_equal(packing.numbers[texts], np.arange(len(texts)))
        ends = packing.columns[texts] + lengths_N[texts]
        np.testing.assert_array_equal(packing.columns[texts], [0, *ends][:-1])


def test_texts_of_many_lengths_leave_little_padding(rng):
    lengths_N = rng.integers(3, 50, 500)
    packing = pack_texts(lengths_N, (64,))
    assert packing.widths.sum() / lengths_N.sum() < 1.02


def test_short_texts_fill_the_rows_of_long_ones():
    packing = pack_texts(np.array([5, 30, 4]), WIDTHS)
    assert packing.widths.tolist() == [40]
    assert packing.columns.tolist() == [30, 0, 35]
    assert packing.numbers.tolist() == [1, 0, 2]


def test_batches_hold_the_tokens_and_their_positions():
    rows = make_rows([3, 9, 2])
    packing = pack_texts(rows.lengths, (16,))
    batch = make_packed_batch(rows, np.arange(3), packing, 2, 77)
    # The longest text first, with two others behind it if there is a place for them.
    np.testing.assert_array_equal(
        batch.token_ids,
        [
            [4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2, 3, 77, 77, 77, 77],
            [13, 14, *[77] * 14],
        ],
    )
    np.testing.assert_array_equal(
        batch.mask, [[*range(1, 10), 1, 2, 3, 0, 0, 0, 0], [1, 2, *[0] * 14]]
    )
    real = batch.mask > 0
    np.testing.assert_array_equal(batch.type_ids[real], (batch.token_ids[real] - 1) % 2)


def test_rows_can_be_chosen():
    packing = pack_texts(np.array([10, 12, 4, 16]), (16,))
    assert packing.rows.tolist() == [2, 1, 1, 0]
    texts, chosen = packing.choose_rows(np.array([2, 0]))
    assert texts.tolist() == [0, 3]
    assert chosen.rows.tolist() == [0, 1]
    assert chosen.widths.tolist() == [16, 16]
    assert packing.select(np.array([2])).find_starts(16).tolist() == [16 + 12]
    assert packing.find_answers(16).tolist() == [4, 2, 3, 0]
