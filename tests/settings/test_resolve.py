"""Fields that were not given: filled in by the method or the release."""

import re
from typing import Any

import pytest

from sweet_jax.settings import fields as settings_lib
from sweet_jax.settings import registries
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.registries import METHODS
from sweet_jax.settings.resolve import (
    FAITHFUL_RELEASE,
    find_defaults,
    resolve_epochs,
    resolve_released_exits,
)
from sweet_jax.settings.rules import SettingsError

DEFAULTS = find_defaults("sweet")


@pytest.mark.parametrize("method", registries.BUILTIN_METHODS)
def test_auto_resolves_by_method_after_overrides(method):
    made = from_config_dict({"method": method, "train": {"num_epochs": 7}})
    flat = settings_lib.flatten_settings(made)
    # How many rows are worth holding out depends on how many there are.
    assert flat.pop("data.calibration_examples") == settings_lib.AUTO
    # The number of rows decides.
    assert flat.pop("train.contrastive_epochs") == settings_lib.AUTO
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


@pytest.mark.parametrize("num_rows", [1, 16, 47, 48, 300, 1600, 1601, 100_000])
@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_few_rows_are_passed_over_until_there_are_enough_steps(
    num_rows, batch_size, monkeypatch
):
    def resolve(num_classes: int = 5, **given: Any) -> tuple[int, int]:
        given["train"] = {"batch_size": batch_size, **given.get("train", {})}
        train = resolve_epochs(from_config_dict(given), num_rows, num_classes).train
        return train.contrastive_epochs, train.num_epochs

    contrastive, epochs = resolve()
    assert epochs == 3
    steps_per_epoch = -(-num_rows // batch_size)
    assert (contrastive + 3) * steps_per_epoch >= 300
    assert contrastive == 0 or (contrastive + 2) * steps_per_epoch < 300
    # The others have as many steps.
    assert resolve(num_classes=4) == (0, contrastive + 3)
    for given in ({"exits": {"init": "random"}}, {"train": {"contrastive_epochs": 0}}):
        assert resolve(**given) == (0, contrastive + 3)
    assert resolve(train={"contrastive_epochs": 2}) == (2, max(3, contrastive + 1))
    assert resolve(train={"num_epochs": 1}) == (0, 1)
    both = {"num_epochs": 1, "contrastive_epochs": 2}
    assert resolve(train=both) == (2, 1)
    kept = from_config_dict({"faithful_release": True})
    assert resolve_epochs(kept, num_rows, 9) == kept
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))
    METHODS.register("elsewhere", lambda settings, num_exits: ())
    assert resolve(method="elsewhere") == (0, contrastive + 3)


def test_drawn_exits_have_no_contrastive_epochs():
    given = {"train": {"contrastive_epochs": 1}, "exits": {"init": "random"}}
    with pytest.raises(SettingsError, match=r"contradicts exits\.init=random") as error:
        from_config_dict(given)
    for remedy in ("exits.init=probe", "train.contrastive_epochs=0"):
        assert remedy in str(error.value)
        name, value = remedy.split("=")
        section, field = name.split(".")
        kept = int(value) if value.isdigit() else value
        from_config_dict(given | {section: {**given[section], field: kept}})


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


def test_lte_joins_the_criteria_that_nobody_chose():
    exits = {"learn_to_exit": True}
    made = from_config_dict({"exits": exits})
    assert made.evaluate.criteria == registries.BUILTIN_CRITERIA
    # As read back from config.json.
    assert from_config_dict(settings_lib.to_dict(made)) == made
    for criteria in (("lte", "margin"), registries.LOGIT_CRITERIA):
        chosen = {"exits": exits, "evaluate": {"criteria": criteria}}
        assert from_config_dict(chosen).evaluate.criteria == criteria
    assert from_config_dict({}).evaluate.criteria == registries.LOGIT_CRITERIA


def test_a_file_to_train_on_is_a_task_of_its_own():
    def get_task(**data):
        return from_config_dict({"data": data}).data.task

    assert get_task() == "rotten_tomatoes"
    assert get_task(train_file="a.csv") == "file"
    assert get_task(train_file="a.csv", task="file") == "file"
    assert get_task(task="imdb") == "imdb"
    for name in ("train_file", "test_file", "validation_file"):
        message = (
            rf"^data\.task=imdb has rows of its own, and data\.{name}=a\.csv gives"
        )
        with pytest.raises(SettingsError, match=message):
            get_task(**{name: "a.csv", "task": "imdb"})


def test_probed_exits_take_no_pooler_of_the_checkpoint():
    exits = {"init": "probe", "pooler_init": "checkpoint"}
    with pytest.raises(SettingsError, match=r"contradicts exits\.init=probe") as error:
        from_config_dict({"exits": exits})
    # Each remedy that it names is one.
    for name, value in re.findall(r"exits\.(\w+)=(fresh|random)", str(error.value)):
        from_config_dict({"exits": exits | {name: value}})
    alone = from_config_dict({"exits": {"pooler_init": "checkpoint"}})
    assert alone.exits.init == "random"
    made = from_config_dict({"exits": {"init": "probe"}})
    assert from_config_dict(settings_lib.to_dict(made)) == made
    assert from_config_dict({}) == made
    drawn = from_config_dict({"exits": {"init": "random"}})
    one, other = map(settings_lib.training_fields, (made, drawn))
    assert {name for name in one if one[name] != other[name]} == {"exits.init"}
    with pytest.raises(SettingsError, match=r"means exits\.init=random"):
        from_config_dict({"exits": {"init": "probe"}, "faithful_release": True})


def test_shots_are_all_training_rows_and_no_calibration_label():
    made = from_config_dict({"data": {"shots": 8}})
    assert (made.data.max_train_examples, made.data.calibration_examples) == (0, 0)
    assert from_config_dict(settings_lib.to_dict(made)) == made
    given = {"shots": 8, "max_train_examples": 0, "calibration_examples": 40}
    assert from_config_dict({"data": given}).data.calibration_examples == 40


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"data": {"shots": 8, "max_train_examples": 2000}},
            r"data.shots=8 and data.max_train_examples=2000 both say .*: drop one",
        ),
        ({"data": {"shots": -1}}, "data.shots=-1: allowed is at least 0"),
        ({"data": {"shots": 8}, "faithful_release": True}, "means data.shots=0"),
        ({"data": {"calibration_examples": 3}}, "allowed is 0, for .*, or at least 4"),
    ],
)
def test_few_shot_settings_that_contradict_are_one_line(config, message):
    with pytest.raises(SettingsError, match=message) as caught:
        from_config_dict(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"train": {"class_weights": "balance"}}, "did you mean balanced"),
        (
            {"train": {"class_weights": "balanced"}, "faithful_release": True},
            "means train.class_weights=none",
        ),
    ],
)
def test_class_weights_that_cannot_be_are_one_line(config, message):
    with pytest.raises(SettingsError, match=message):
        from_config_dict(config)
