"""Settings of PAPA: defaults, the released ones, and one line for what is wrong."""

import pytest

from sweet_jax.settings.config_file import read_config
from sweet_jax.settings.papa import papa_from_config_dict
from sweet_jax.settings.rules import SettingsError


def read(*fields: str, name="papa"):
    flags = [f"--config.{field}" for field in fields]
    return papa_from_config_dict(read_config([f"--config={name}", *flags]))


def test_defaults_are_for_small_machines_and_the_released_ones_for_the_paper():
    settings, papa = read()
    assert (papa.batch_size, papa.states, papa.dropout) == (32, "kept", 0.1)
    assert settings.data.max_train_examples == 2000
    settings, papa = read("papa.faithful_release=True")
    assert (papa.batch_size, papa.num_epochs, papa.ranking_epochs) == (16, 15, 15)
    assert (papa.learning_rate, papa.states, papa.dropout) == (2e-5, "streamed", -1)
    assert settings.data.max_train_examples == 0
    assert not settings.faithful_release


def test_fields_of_encoder_and_rows_are_those_of_a_run():
    settings, papa = read(
        "data.max_train_examples=50", "papa.seeds=3,4", name="papa:task=cola,seed=2"
    )
    assert (settings.data.task, settings.seed) == ("cola", 2)
    assert settings.data.max_train_examples == 50
    assert papa.seeds == (3, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["papa.length=63"], r"papa\.length=63: allowed are even numbers, such as 64"),
        (["papa.length=6"], r"papa\.length=6: allowed is at least 8"),
        (["papa.constant_heads=3,-1"], r"papa\.constant_heads=.*rising"),
        (["papa.shares=0.5,2"], r"papa\.shares=.*from 0 to 1"),
        (["papa.rankings=gate"], r"papa\.rankings.*gates"),
        (
            ["papa.constants=averages_0"],
            "averages_N, uniform, identity and by_distance",
        ),
        (["papa.seeds=1,1"], "rising, different numbers"),
        (["papa.batchsize=3"], r"unknown config key.*papa\.batch_size"),
        (["exits.layers=0"], r"unknown config key 'exits\.layers'"),
        (["data.max_length=64"], r"data\.max_length=64 is for training.*papa\.length"),
        (["data.buckets=16,32"], r"data\.buckets=.* is for training"),
        (
            ["papa.faithful_release=True", "papa.states=kept"],
            r"papa\.states=kept contradicts papa\.faithful_release=True",
        ),
        (
            ["papa.faithful_release=True", "papa.num_epochs=3"],
            r"papa\.num_epochs=3 contradicts.*papa\.num_epochs=15",
        ),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(SettingsError, match=message) as found:
        read(*fields)
    assert "\n" not in str(found.value)


def test_a_method_is_no_field_of_the_analysis():
    with pytest.raises(SettingsError, match="unknown config key 'method'"):
        read(name="papa:method=sweet")


def test_the_release_of_sweet_is_another_one():
    with pytest.raises(SettingsError, match=r"set papa\.faithful_release=True"):
        papa_from_config_dict({"faithful_release": True, "papa": {}})
