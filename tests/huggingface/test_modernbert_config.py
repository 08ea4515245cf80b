"""ModernBERT's config.json under the hub's names and under those of transformers 5."""

from typing import Any

import pytest
from golden.make_modernbert import CONFIG
from published import PUBLISHED
from tiny_configs import TINY_CONFIGS

from sweet_jax.huggingface.config import parse_config

HUB = TINY_CONFIGS["modernbert"]
GLOBAL, LOCAL = "full_attention", "sliding_attention"
OLD = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
ROTARY = {
    GLOBAL: {"rope_type": "default", "rope_theta": 1000.0},
    LOCAL: {"rope_type": "default", "rope_theta": 100.0},
}
NEW = {
    **{name: HUB[name] for name in HUB if name not in OLD},
    "layer_types": [GLOBAL, LOCAL, LOCAL, GLOBAL],
    "rope_parameters": ROTARY,
}


def test_both_generations_of_names_say_the_same():
    config: Any = parse_config(HUB)
    assert config.layer_types == (GLOBAL, LOCAL, LOCAL, GLOBAL)
    assert (config.global_theta, config.local_theta) == (1000.0, 100.0)
    assert (config.local_attention, config.max_positions) == (4, 32)
    assert parse_config(NEW) == config
    # transformers 5 may keep the old names beside the new ones.
    assert parse_config({**HUB, **NEW}) == config


@pytest.mark.reference
@pytest.mark.parametrize("attributes", [HUB, CONFIG], ids=["tiny", "recorded"])
def test_what_transformers_writes_back_is_read_as_the_hubs_file(attributes):
    import transformers

    theirs = transformers.AutoConfig.for_model(**attributes).to_dict()
    assert theirs.keys() > {"rope_parameters", "layer_types"}
    assert parse_config(theirs) == parse_config(attributes)


def test_published_files_say_nothing_but_the_defaults():
    attributes, _ = PUBLISHED["ModernBERT-base"]
    sizes = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
    sizes += ("num_attention_heads", "intermediate_size", "max_position_embeddings")
    sparse: Any = parse_config({name: attributes[name] for name in sizes})
    assert sparse == parse_config(attributes)
    assert sparse.layer_types[:4] == (GLOBAL, LOCAL, LOCAL, GLOBAL)
    assert (sparse.global_theta, sparse.local_theta) == (160_000.0, 10_000.0)


def test_any_pattern_of_layers_is_read():
    kinds = [LOCAL, GLOBAL, GLOBAL, LOCAL]
    config: Any = parse_config({**NEW, "layer_types": kinds})
    assert config.layer_types == tuple(kinds)
    everywhere: Any = parse_config({**HUB, "global_attn_every_n_layers": 1})
    assert set(everywhere.layer_types) == {GLOBAL}


def test_a_kind_that_rope_parameters_leaves_out_keeps_its_own_name():
    attributes = {**HUB, "rope_parameters": {GLOBAL: ROTARY[GLOBAL], LOCAL: None}}
    assert parse_config(attributes) == parse_config(HUB)


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (NEW, {"global_attn_every_n_layers": 2}, r"layer_types contradicts .*=2"),
        (NEW, {"global_rope_theta": 7.0}, r"=7.0 contradicts .*\.rope_theta=1000"),
        (NEW, {"local_rope_theta": 7.0}, r"=7.0 contradicts .*sliding.*=100"),
        (NEW, {"layer_types": [GLOBAL] * 3}, r"a list of num_hidden_layers=4 names"),
        (NEW, {"layer_types": GLOBAL}, r"layer_types must be a list"),
        (NEW, {"layer_types": [GLOBAL, "x", "y", "z"]}, r"layer_types has 'x'"),
        (HUB, {"global_attn_every_n_layers": 0}, r"=0 must be a whole number"),
        (HUB, {"global_attn_every_n_layers": 1.5}, r"=1.5 must be a whole number"),
        (HUB, {"local_rope_theta": None}, r"local_rope_theta=None must be a number"),
        (HUB, {"global_rope_theta": 0}, r"global_rope_theta=0 must be a number above"),
        (HUB, {"rope_parameters": 7}, r"rope_parameters=7 is not a JSON object"),
        (HUB, {"rope_parameters": {"rope_theta": 7}}, r"has rope_theta, not impl"),
        (
            HUB,
            {"rope_parameters": {GLOBAL: {"rope_theta": 1000.0, "factor": 2}}},
            r"rope_parameters\.full_attention has factor, not implemented",
        ),
        (
            HUB,
            {"rope_parameters": {LOCAL: {"rope_type": "yarn"}}},
            r"sliding_attention\.rope_type='yarn' is not implemented",
        ),
        (HUB, {"rope_scaling": {"type": "yarn"}}, r"rope_scaling=.* is not impl"),
        (HUB, {"partial_rotary_factor": 0.5}, r"unknown attribute partial_rotary"),
        (HUB, {"sliding_window": 8}, r"unknown attribute sliding_window"),
        (HUB, {"attention_bias": True}, r"attention_bias=True is not implemented"),
        (HUB, {"mlp_bias": True}, r"mlp_bias=True is not implemented"),
        (HUB, {"norm_bias": True}, r"norm_bias=True is not implemented"),
        (HUB, {"hidden_activation": "mish"}, r"hidden_activation='mish'"),
        (HUB, {"layer_norm_eps": 1e-3}, r"layer_norm_eps=0.001 contradicts norm_eps"),
        (HUB, {"hidden_size": 18, "num_attention_heads": 2}, r"heads of odd width"),
        (HUB, {"local_attention": 0}, r"local_attention=0 must be at least 1"),
        (HUB, {"num_hidden_layers": None}, r"lacks num_hidden_layers"),
        (HUB, {"num_hidden_layers": "4"}, r"num_hidden_layers='4' is not of type int"),
    ],
)  # fmt: skip
def test_what_we_do_not_compute_is_refused_by_name(base, change, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_config({**base, **change}, source="FOLDER/config.json")
    assert str(error.value).startswith("FOLDER/config.json")
    assert "\n" not in str(error.value)
