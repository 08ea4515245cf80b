"""The layout: slots of single texts and pairs, what is cut, type ids, the mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.analysis.papa.layout import Layout, lay_out, place
from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import load_tokenizer


def make_examples(texts, pairs=None):
    return Examples(
        tuple(texts),
        None if pairs is None else tuple(pairs),
        np.zeros(len(texts), np.int32),
        np.arange(len(texts)),
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder):
    return load_tokenizer(tiny_encoder, 32)


def find_slots(rows, i=0):
    return np.flatnonzero(rows.mask[i]).tolist()


def repeat(word, number):
    return " ".join([word] * number)


@pytest.mark.parametrize("faithful", [False, True])
def test_single_texts_and_pairs_have_their_slots(tokenizer, faithful):
    layout = Layout(12, faithful)
    single = lay_out(tokenizer, make_examples(["good film plot"]), layout)
    assert find_slots(single) == [0, 1, 2, 3, 11]
    pair = lay_out(tokenizer, make_examples(["a good film"], ["bad plot"]), layout)
    assert find_slots(pair) == [0, 1, 2, 3, 6, 7, 8, 11]
    separator = tokenizer.sep_token_id
    assert pair.token_ids[0, 6] == pair.token_ids[0, 11] == separator
    names = tokenizer.convert_ids_to_tokens(pair.token_ids[0, [1, 2, 3, 7, 8]])
    assert names == ["a", "good", "film", "bad", "plot"]
    assert (pair.token_ids[pair.mask == 0] == tokenizer.pad_token_id).all()


@pytest.mark.parametrize("faithful", [False, True])
def test_each_text_of_a_pair_is_cut_to_its_half(tokenizer, faithful):
    layout = Layout(12, faithful)
    first = make_examples([repeat("good", 7)], ["bad"])
    assert find_slots(lay_out(tokenizer, first, layout)) == [*range(6), 6, 7, 11]
    second = make_examples(["bad"], [repeat("good", 7)])
    rows = lay_out(tokenizer, second, layout)
    assert find_slots(rows) == [0, 1, 6, 7, 8, 9, 10, 11]
    assert rows.cut_rows == 1


def test_a_single_text_uses_all_slots_or_half_of_them_as_released(tokenizer):
    texts = make_examples([repeat("good", 7), repeat("good", 20)])
    sane = lay_out(tokenizer, texts, Layout(12))
    assert [find_slots(sane, i) for i in (0, 1)] == [[*range(8), 11], [*range(12)]]
    assert sane.cut_rows == 1
    released = lay_out(tokenizer, texts, Layout(12, faithful=True))
    assert find_slots(released, 0) == find_slots(released, 1) == [*range(6), 11]
    assert released.cut_rows == 2


def test_type_ids_follow_the_tokens_unless_released(tokenizer):
    pair = make_examples(["good"], ["bad film"])
    sane = lay_out(tokenizer, pair, Layout(12))
    assert sane.type_ids[0].tolist() == [0] * 7 + [1] * 5
    # Unmoved: [CLS] good [SEP] bad film [SEP]; moved, text 2 (slots 7, 8) has type 0.
    released = lay_out(tokenizer, pair, Layout(12, faithful=True))
    assert released.type_ids[0].tolist() == [0, 0, 0, 1, 1, 1] + [0] * 6
    single = lay_out(tokenizer, make_examples(["good"]), Layout(12))
    assert not single.type_ids.any()


def test_a_separator_written_in_a_text_ends_it_only_as_released(tokenizer):
    texts = make_examples(["good [SEP] bad"])
    assert find_slots(lay_out(tokenizer, texts, Layout(12))) == [0, 1, 2, 3, 11]
    released = lay_out(tokenizer, texts, Layout(12, faithful=True))
    assert find_slots(released) == [0, 1, 11]


def test_roberta_keeps_both_separators_between_the_texts(make_tiny_encoder):
    tokenizer = load_tokenizer(make_tiny_encoder("roberta"), 32)
    examples = make_examples(["good film"], ["bad"])
    encoding = tokenizer("good film", "bad")["input_ids"]
    rows = lay_out(tokenizer, examples, Layout(12))
    kept = rows.token_ids[0][rows.mask[0] == 1]
    assert kept.tolist() == encoding
    middle = encoding.index(tokenizer.sep_token_id)
    assert find_slots(rows)[:middle] == [*range(middle)]
    assert find_slots(rows)[middle] == 6


@given(st.integers(1, 30), st.integers(0, 30), st.integers(4, 12), st.booleans())
def test_tokens_keep_their_order_and_both_ends(first, second, half, faithful):
    length = 2 * half
    slots, tokens = place((first, second), Layout(length, faithful))
    assert (np.diff(slots) > 0).all()
    assert (np.diff(tokens) > 0).all()
    assert slots[-1] == length - 1
    assert tokens[-1] == first + second
    assert (slots[0], tokens[0]) == (0, 0)
    if second:
        assert slots[tokens.tolist().index(first)] == half


def test_a_tokenizer_without_a_separator_at_the_end_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "sep_token_id", None, raising=False)
    with pytest.raises(ValueError, match="moves the separator at the end of a row"):
        lay_out(tokenizer, make_examples(["good"]), Layout(12))


def test_batches_are_filled_up_with_rows_of_weight_0(tokenizer):
    rows = lay_out(tokenizer, make_examples(["good", "bad", "a"]), Layout(8))
    batch = rows.take(np.array([2, 0]), 4)
    assert batch.row_ids.tolist() == [2, 0, -1, -1]
    assert batch.weights.tolist() == [1, 1, 0, 0]
    assert batch.mask.sum(axis=1).tolist() == [3, 3, 0, 0]
