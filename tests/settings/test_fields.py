"""Settings: every wrong value is one clear line; AUTO resolves by method."""

import re
from typing import Any

import pytest

from sweet_jax.settings import fields as settings_lib
from sweet_jax.settings.fields import SettingsError
from sweet_jax.settings.resolve import (
    FAITHFUL_RELEASE,
    METHOD_DEFAULTS,
    from_config_dict,
    parse_config_string,
    resolve_released_exits,
)

DEFAULTS = METHOD_DEFAULTS["sweet"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"optim": {"encoder_lr": 1.0}}, "unknown config key 'optim.encoder_lr'"),
        ({"nonsense": {"x": 1}}, "unknown config key 'nonsense'"),
        (
            {"method": "sweat"},
            "gradient_equilibrium; did you mean sweet",
        ),
        (
            {"train": {"batch_size": "16"}},
            "train.batch_size='16' is a str, expected int",
        ),
        (
            {"train": {"batch_size": 2.5}},
            "train.batch_size=2.5 is a float, expected int",
        ),
        ({"train": {"batch_size": 0}}, "train.batch_size=0: allowed is at least 1"),
        ({"exits": {"layers": (3, 1)}}, "are not rising"),
        ({"exits": {"layers": (1, 1)}}, "are not rising"),
        ({"exits": {"layers": (-1, 1)}}, "has a negative layer"),
        ({"boundary_gradient_scale": 1.0}, "allowed is 0 <= a < 1"),
        (
            {"boundary_gradient_scale": 0.2, "method": "early_exit"},
            "belongs to method=sweet",
        ),
        ({"evaluate": {"criteria": ("confidense",)}}, "did you mean confidence"),
        (
            {"evaluate": {"criteria": ("lte",)}},
            "names lte, whose heads are trained only with exits.learn_to_exit=True",
        ),
        (
            {"exits": {"learn_to_exit": 1}},
            "exits.learn_to_exit=1 is a int, expected bool",
        ),
        ({"faithful_release": True, "exits": {"pooling": "cls"}}, None),
        (
            {"faithful_release": True, "train": {"num_epochs": 5}},
            "train.num_epochs=5 contradicts faithful_release=True",
        ),
        ({"optim": {"clip_scope": "member"}}, "optim.clip_scope of method=sweet"),
        (
            {"train": {"batch_size": 16, "accumulate_steps": 3}},
            "train.accumulate_steps=3 must divide",
        ),
        ({"analysis": {"steps_percent": (0, 101)}}, "numbers from 0 to 100"),
        ({"analysis": {"steps_percent": ()}}, "one or more numbers from 0 to 100"),
        ({"analysis": {"num_batches": 0}}, "analysis.num_batches=0: allowed is at"),
        (
            {"analysis": {"gradient_conflict": True}, "method": "multi_model"},
            "the models of method=multi_model share no weights",
        ),
        (
            {"analysis": {"gradient_conflict": True}, "exits": {"layers": (3,)}},
            "is a single exit",
        ),
    ],
)
def test_bad_values_name_field_value_and_allowed(config, message):
    if message is None:
        from_config_dict(config)
        return
    with pytest.raises(SettingsError, match=message.replace("(", r"\(")) as caught:
        from_config_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", settings_lib.METHODS)
def test_auto_resolves_by_method_after_overrides(method):
    made = from_config_dict({"method": method, "train": {"num_epochs": 7}})
    flat = settings_lib.flatten_settings(made)
    assert settings_lib.AUTO not in [v for v in flat.values() if v is not True]
    # The tasks say what their metric is.
    assert [n for n, v in flat.items() if v == "auto"] == ["data.metric"]
    assert made.train.num_epochs == 7


def nest(name: str, value: Any) -> dict[str, Any]:
    section, _, field = name.rpartition(".")
    return {section: {field: value}} if section else {field: value}


def test_what_a_default_fills_in_is_a_field_that_was_not_given():
    """So no value that a person can mean is taken for "not given"."""
    not_given = settings_lib.flatten_settings(settings_lib.Settings())
    for name, value in [*DEFAULTS.items(), *FAITHFUL_RELEASE.items()]:
        same = FAITHFUL_RELEASE.get(name) == value and name not in DEFAULTS
        assert not_given[name] in (-1, "auto", ()) or same, name


@pytest.mark.parametrize("name", sorted({*DEFAULTS, *FAITHFUL_RELEASE}))
def test_a_given_value_is_kept_or_refused_but_never_replaced(name):
    """Also one that equals a default; and what the refusal says helps."""
    values = [v[name] for v in (DEFAULTS, FAITHFUL_RELEASE) if name in v]
    for value in values:
        given = nest(name, value)
        assert settings_lib.flatten_settings(from_config_dict(given))[name] == value
        if name in FAITHFUL_RELEASE and value != FAITHFUL_RELEASE[name]:
            told = f"{name}={FAITHFUL_RELEASE[name]}: set that, or drop"
            with pytest.raises(SettingsError, match=re.escape(told)):
                from_config_dict(given | {"faithful_release": True})
            given = nest(name, FAITHFUL_RELEASE[name])
        made = from_config_dict(given | {"faithful_release": True})
        wanted = FAITHFUL_RELEASE.get(name, value)
        assert settings_lib.flatten_settings(made)[name] == wanted


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ({"dropout": 0.1}, "exits.dropout=0.1 contradicts .* means exits.dropout=0.2"),
        ({"pooler_init": "fresh"}, "means exits.pooler_init=checkpoint"),
        ({"dropout": 0.2, "pooler_init": "checkpoint"}, None),
        ({}, None),
    ],
)
def test_released_exits_are_those_of_the_encoder(exits, message):
    settings = from_config_dict({"exits": exits, "faithful_release": True})
    if message is not None:
        with pytest.raises(SettingsError, match=message):
            resolve_released_exits(settings, dropout=0.2, has_pooler=True)
        return
    made = resolve_released_exits(settings, dropout=0.2, has_pooler=True)
    assert (made.exits.dropout, made.exits.pooler_init) == (0.2, "checkpoint")
    assert not made.exits.layers
    # As read back from config.json.
    assert from_config_dict(settings_lib.to_dict(made)) == made
    fresh = resolve_released_exits(
        from_config_dict({"faithful_release": True}), dropout=0.2, has_pooler=False
    )
    assert fresh.exits.pooler_init == "fresh"


def test_a_share_in_the_method_does_not_replace_a_given_one():
    for scale in (0.0, 0.5):
        fields = {"method": "sweet(a=0.2)", "boundary_gradient_scale": scale}
        with pytest.raises(SettingsError, match=r"contradicts method=sweet\(a=0\.2\)"):
            from_config_dict(fields)
    assert from_config_dict({"method": "sweet"}).boundary_gradient_scale == 0


def test_lte_joins_the_criteria_that_nobody_chose():
    exits = {"learn_to_exit": True}
    made = from_config_dict({"exits": exits})
    assert made.evaluate.criteria == settings_lib.CRITERIA
    # As read back from config.json.
    assert from_config_dict(settings_lib.to_dict(made)) == made
    for criteria in (("lte", "margin"), settings_lib.LOGIT_CRITERIA):
        chosen = {"exits": exits, "evaluate": {"criteria": criteria}}
        assert from_config_dict(chosen).evaluate.criteria == criteria
    assert from_config_dict({}).evaluate.criteria == settings_lib.LOGIT_CRITERIA


def test_config_string():
    parsed = parse_config_string("task=sst2,method=early_exit,seed=3")
    assert parsed == {"data.task": "sst2", "method": "early_exit", "seed": 3}
    with pytest.raises(SettingsError, match="allowed are key=value with the keys task"):
        parse_config_string("tsak=sst2")


def test_int_is_accepted_for_a_float_and_not_the_other_way():
    assert from_config_dict({"optim": {"clip_norm": 2}}).optim.clip_norm == 2.0
    with pytest.raises(SettingsError, match="expected int"):
        from_config_dict({"seed": 1.5})


def test_default_exits_by_depth():
    assert settings_lib.default_exit_layers(12) == (0, 3, 5, 11)
    assert settings_lib.default_exit_layers(3) == (0, 1, 2)
    with pytest.raises(SettingsError, match="past the encoder of 6 layers"):
        settings_lib.check_exit_layers((0, 6), 6)


def test_digests_ignore_what_is_only_measured():
    """A finished run is not orphaned by asking for its gradients."""
    fields = {"gradient_conflict": True, "steps_percent": (1,), "num_batches": 2}
    one = from_config_dict({"method": "early_exit"})
    two = from_config_dict({"method": "early_exit", "analysis": fields})
    assert one != two
    for list_fields in (settings_lib.training_fields, settings_lib.evaluation_fields):
        assert list_fields(one) == list_fields(two)


def test_digest_ignores_what_changes_no_result():
    one = from_config_dict({"train": {"checkpoint_every_steps": 5}})
    two = from_config_dict({})
    three = from_config_dict({"optim": {"clip_norm": 2.0}})
    digest = [
        settings_lib.compute_digest(settings_lib.training_fields(s))
        for s in (one, two, three)
    ]
    assert digest[0] == digest[1] != digest[2]
