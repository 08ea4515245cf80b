"""From a config to settings: every wrong value is one clear line."""

import pytest

from sweet_jax.settings.from_config import from_config_dict, parse_config_string
from sweet_jax.settings.rules import SettingsError


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
        ({"exits": {"layers": (3, 1)}}, "allowed are rising"),
        ({"exits": {"layers": (1, 1)}}, "allowed are rising"),
        ({"exits": {"layers": (-1, 1)}}, "allowed for each number is at least 0"),
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
        (
            {"analysis": {"steps_percent": (0, 101)}},
            "allowed for each number is from 0 to 100",
        ),
        ({"analysis": {"steps_percent": ()}}, "allowed is at least 1 in the list"),
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


def test_config_string():
    parsed = parse_config_string("task=sst2,method=early_exit,seed=3")
    assert parsed == {"data.task": "sst2", "method": "early_exit", "seed": 3}
    with pytest.raises(SettingsError, match="allowed are key=value with the keys task"):
        parse_config_string("tsak=sst2")


def test_int_is_accepted_for_a_float_and_not_the_other_way():
    assert from_config_dict({"optim": {"clip_norm": 2}}).optim.clip_norm == 2.0
    with pytest.raises(SettingsError, match="expected int"):
        from_config_dict({"seed": 1.5})


@pytest.mark.parametrize("value", [0, 0.5, 91, -20])
def test_a_share_of_test_rows_leaves_rows_on_both_sides(value):
    with pytest.raises(SettingsError, match=r"test_percent=.*allowed is from 1 to 90"):
        from_config_dict({"data": {"train_file": "a.csv", "test_percent": value}})


def test_metrics_are_those_of_the_registry():
    assert from_config_dict({"data": {"metric": "macro_f1"}}).data.metric == "macro_f1"
    with pytest.raises(
        SettingsError,
        match=r"^data.metric='macrof1': allowed are auto, acc.*did you me",
    ):
        from_config_dict({"data": {"metric": "macrof1"}})


def test_a_share_in_the_method_does_not_replace_a_given_one():
    for scale in (0.0, 0.5):
        fields = {"method": "sweet(a=0.2)", "boundary_gradient_scale": scale}
        with pytest.raises(SettingsError, match=r"contradicts method=sweet\(a=0\.2\)"):
            from_config_dict(fields)
    assert from_config_dict({"method": "sweet"}).boundary_gradient_scale == 0


def test_one_value_is_a_list_of_one_and_each_item_has_the_type():
    made = from_config_dict({"exits": {"layers": 3}, "data": {"text_columns": "a"}})
    assert (made.exits.layers, made.data.text_columns) == ((3,), ("a",))
    with pytest.raises(
        SettingsError, match=r"exits.layers\[1\]='2' is a str, expected"
    ):
        from_config_dict({"exits": {"layers": (1, "2")}})
    with pytest.raises(SettingsError, match=r"clip_norm=nan: allowed are finite"):
        from_config_dict({"optim": {"clip_norm": float("nan")}})
