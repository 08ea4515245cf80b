"""Name maps: one row per tensor, read in both directions, whatever a file adds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.rules import (
    TRANSFORMS,
    NameMap,
    Rule,
    make_dense_rules,
    make_norm_rules,
)

MAP = NameMap(
    rules=(
        Rule("words.weight", "embeddings/word/embedding"),
        *make_dense_rules("encoder.layer.{layer}.dense", "layer_{layer}/up"),
        *make_norm_rules("encoder.layer.{layer}.norm", "layer_{layer}/norm"),
    ),
    renames=((r"^old\.", ""), (r"gamma$", "weight"), (r"^table\.", "words.")),
    ignored=(r"classifier\..*",),
)
# What others put before the names of an encoder.
WRAPPERS = (
    *("module.", "_orig_mod.", "model.", "base_model.", "auto_model."),
    *("0.auto_model.", "transformer.", "encoder.module.", "encoder.auto_model."),
)


@pytest.mark.parametrize("family", NAME_MAPS)
def test_every_row_translates_both_ways(family):
    name_map = NAME_MAPS[family]
    for rule in name_map.rules:
        theirs, ours = rule.theirs.format(layer=11), rule.ours.format(layer=11)
        assert name_map.to_ours(theirs) == (ours, rule.transform)
        assert name_map.to_theirs(ours) == (theirs, rule.transform)
    assert name_map.to_ours("encoder.layer.x.output.dense.bias") is None
    assert name_map.to_ours("encoderXlayer.0.output.dense.bias") is None
    assert name_map.to_theirs("layer_x/feed_forward/down/bias") is None


def test_no_row_of_a_table_begins_like_a_wrapper():
    for name_map in NAME_MAPS.values():
        for rule in name_map.rules:
            name = rule.theirs.format(layer=3)
            assert name_map.rename(name) == name


@given(st.integers(0, 10**6))
def test_every_layer_has_the_rows_of_one(layer):
    theirs, ours = f"encoder.layer.{layer}.dense.weight", f"layer_{layer}/up/kernel"
    assert MAP.to_ours(theirs) == (ours, "transpose")
    assert MAP.to_theirs(ours) == (theirs, "transpose")
    assert MAP.to_theirs(f"layer_{layer}/norm/scale") == (
        f"encoder.layer.{layer}.norm.weight",
        "same",
    )


@given(st.lists(st.sampled_from(WRAPPERS), max_size=4), st.booleans())
def test_wrappers_come_off_in_any_order_and_number(wrappers, is_old):
    name = "".join(wrappers) + "old." * is_old + "encoder.layer.3.norm.gamma"
    assert MAP.rename(name) == "encoder.layer.3.norm.weight"


def test_renames_follow_each_other():
    assert MAP.rename("module.old.table.gamma") == "words.weight"


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("words.weight", None),
        ("own.words.weight", "own."),
        ("own.net.encoder.layer.2.dense.bias", "own.net."),
        ("own.old.words.gamma", "own."),
        ("own.head.weight", None),
        (".".join("abcdefghi") + ".words.weight", "a.b.c.d.e.f.g.h.i."),
        # Files may hold long names, and many.
        (".".join("abcdefghij") + ".words.weight", None),
    ],
)
def test_an_unknown_prefix_is_found_before_a_known_name(name, prefix):
    assert MAP.find_prefix(name) == prefix


@pytest.mark.parametrize(
    ("name", "is_ignored", "is_buffer"),
    [
        ("classifier.weight", True, False),
        ("embeddings.position_ids", True, True),
        ("embeddings.token_type_ids", True, True),
        # The whole name, not its beginning or its end.
        ("pre_classifier.weight", False, False),
        ("embeddings.position_ids.weight", False, False),
        ("embeddings_position_ids", False, False),
        ("words.weight", False, False),
    ],
)
def test_what_is_no_part_of_the_encoder_is_known_by_its_whole_name(
    name, is_ignored, is_buffer
):
    assert (MAP.is_ignored(name), MAP.is_buffer(name)) == (is_ignored, is_buffer)


@pytest.mark.parametrize(
    ("family", "has_pooler"),
    [("bert", True), ("mpnet", True), ("deberta-v2", False), ("modernbert", False)],
)
def test_a_family_has_a_pooler_if_it_has_its_rows(family, has_pooler):
    assert NAME_MAPS[family].has_pooler is has_pooler


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 5)])
def test_transforms_undo_each_other(name, shape, rng):
    theirs = rng.normal(size=shape)
    to_ours, to_theirs = TRANSFORMS[name]
    np.testing.assert_array_equal(to_theirs(to_ours(theirs)), theirs)
    # [out, in, window] is [window, in, out] here.
    assert to_ours(theirs).shape == (shape[::-1] if name == "transpose" else shape)
