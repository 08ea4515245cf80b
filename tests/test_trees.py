"""Parameter paths, masks and the strict merge."""

import numpy as np
import pytest

from sweet_jax import trees


def test_flatten_and_unflatten_are_inverse():
    tree = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    flat = trees.flatten_paths(tree)
    assert flat == {"a/b/c": 1, "a/d": 2, "e": 3}
    assert trees.unflatten_paths(flat) == tree


def test_mask_matches_whole_paths_only():
    tree = {"encoder": {"layer_1": {"k": 0}, "layer_10": {"k": 0}}}
    mask = trees.flatten_paths(trees.make_mask(tree, ["encoder/layer_1/.*"]))
    assert mask == {"encoder/layer_1/k": True, "encoder/layer_10/k": False}


def test_merge_lists_missing_extra_and_shapes_together():
    initial = {"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(1)}
    loaded = {"a": np.zeros(2), "b": np.zeros(4), "d": np.zeros(1)}
    with pytest.raises(
        ValueError, match=r"missing: c \| extra: d \| shapes: b is \(4,\)"
    ):
        trees.merge_strict(initial, loaded)


def test_merge_takes_the_loaded_leaves():
    merged = trees.merge_strict({"a": np.zeros(2)}, {"a": np.ones(2)})
    np.testing.assert_array_equal(merged["a"], np.ones(2))
