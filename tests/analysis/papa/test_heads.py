"""Which heads become constant: known scores give a known list, and its first k."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.analysis.papa.heads import (
    count_constant,
    keep_dynamic,
    rank_at_random,
    rank_by_place,
    sort_heads,
)

LAM = np.array([[0.3, -0.2], [0.1, -0.4], [0.0, 0.2]])


def test_the_lowest_gates_become_constant_first():
    assert sort_heads(LAM).tolist() == [3, 1, 4, 2, 5, 0]
    dynamic = keep_dynamic(sort_heads(LAM), 2, 2)
    assert dynamic.tolist() == [[True, False], [True, False], [True, True]]


@given(st.integers(0, 6))
def test_the_first_k_are_constant_and_contain_the_first_fewer(k):
    dynamic = keep_dynamic(sort_heads(LAM), k, 2)
    assert (~dynamic).sum() == k
    assert (dynamic <= keep_dynamic(sort_heads(LAM), max(k - 1, 0), 2)).all()


def test_whole_layers_from_either_end():
    bottom, top = (rank_by_place(3, 2, from_top) for from_top in (False, True))
    assert sort_heads(bottom).tolist() == [0, 1, 2, 3, 4, 5]
    assert sort_heads(top).tolist() == [4, 5, 2, 3, 0, 1]


def test_a_random_order_is_that_of_the_seed():
    orders = [sort_heads(rank_at_random(6, 12, seed)).tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(72))


def test_the_papers_numbers_of_constant_heads():
    shares = (1.0, 0.5, 0.125, 0.0625, 0.0)
    assert count_constant(shares, 144) == (0, 72, 126, 135, 144)
    assert count_constant(shares, 384) == (0, 192, 336, 360, 384)
    assert count_constant(shares, 72) == (0, 36, 63, 68, 72)
    assert count_constant((0.01,), 8) == (7,)  # At least one stays dynamic.
