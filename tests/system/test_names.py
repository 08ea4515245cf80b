"""Names that a person gave, against those that there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.system.names import describe_unknown, find_close, suggest

ALLOWED = ("sweet", "early_exit", "multi_model")


@pytest.mark.parametrize("name", ["sweat", "swet", "sweeet"])
def test_a_typing_error_finds_its_name(name):
    assert suggest(name, ALLOWED) == "did you mean sweet?"
    assert find_close(name, ALLOWED) == ["sweet"]
    assert describe_unknown("method", name, ALLOWED) == (
        f"method={name!r}: allowed are sweet, early_exit, multi_model; did you mean"
        " sweet?"
    )


def test_nothing_close_gives_no_hint():
    assert suggest("x" * 20, ALLOWED) == ""
    assert describe_unknown("a", 3, ["b"]) == "a=3: allowed are b"


@given(st.lists(st.from_regex("[a-z]{1,8}", fullmatch=True), min_size=1, unique=True))
def test_a_name_is_its_own_best_match_and_many_names_are_cut(names):
    assert suggest(names[0], names).startswith(f"did you mean {names[0]}")
    line = describe_unknown("name", "?", [*names, *map(str, range(40))])
    assert line.endswith(f" and {len(names) + 10} others")
