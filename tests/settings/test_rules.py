"""Rules beside the fields: what each refuses, and that every field has a rule."""

import dataclasses
from typing import Annotated

import pytest

from sweet_jax.settings.fields import AUTO, Settings, flatten_settings, list_fields
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import (
    Length,
    OneOf,
    Range,
    Rising,
    Rule,
    SettingsError,
    check_rules,
    find_types,
    strip_rules,
)
from sweet_jax.system.registry import Registry

COLOURS: Registry[str] = Registry("colour", builtin=("red", "green"))


@pytest.mark.parametrize(
    ("rule", "good", "bad", "message"),
    [
        (Range(1), 1, 0, "x=0: allowed is at least 1"),
        (Range(0, 0.5), 0.5, 0.51, "x=0.51: allowed is from 0 to 0.5"),
        (Range(1), (), (2, 0), r"x=\(2, 0\): allowed for each number is at least 1"),
        (OneOf("a", "b"), "b", "c", "x='c': allowed are a, b"),
        (
            OneOf("auto", registry=COLOURS),
            "red",
            "gren",
            "auto, red, green; did you me",
        ),
        (OneOf(registry=COLOURS), ("red", "green"), ("red", "blue"), "x='blue'"),
        (Rising(), (1, 2, 5), (1, 1), r"x=\(1, 1\): allowed are rising"),
        (Length(0, 2, "one or two"), ("a",), ("a", "b", "c"), "allowed are one or two"),
        (Length(1, None, "one or more"), (1,), (), r"x=\(\): allowed are one or more"),
    ],
)
def test_a_rule_takes_and_refuses(rule, good, bad, message):
    rule.check("x", good)
    with pytest.raises(SettingsError, match=message):
        rule.check("x", bad)


@dataclasses.dataclass(frozen=True)
class Inner:
    """A section."""

    size: Annotated[int, Range(1)] = AUTO
    names: Annotated[tuple[str, ...], Length(0, 1, "one")] = ()
    free: str = ""


@dataclasses.dataclass(frozen=True)
class Outer:
    """Settings with a section."""

    seed: Annotated[int, Range(0), Range(-5, 9)] = 0
    inner: Inner = Inner()


def test_rules_are_found_by_dotted_field_and_all_hold():
    types = find_types(Outer)
    assert list(types) == ["seed", "inner.size", "inner.names", "inner.free"]
    plain = [strip_rules(kind) for kind in types.values()]
    assert plain == [int, int, tuple[str, ...], str]
    values = {"seed": 9, "inner.size": AUTO, "inner.names": (), "inner.free": ""}
    check_rules(types, values, unset={"inner.size"})
    with pytest.raises(SettingsError, match=r"inner\.size=-1: allowed is at least 1"):
        check_rules(types, values)
    with pytest.raises(SettingsError, match="seed=10: allowed is from -5 to 9"):
        check_rules(types, values | {"seed": 10, "inner.size": 1})


def test_every_number_and_word_of_a_run_has_a_rule():
    """So that no value out of range reaches a run. These take any text or list."""
    free = {
        name
        for name, kind in list_fields().items()
        if not name.startswith("study.")
        and strip_rules(kind) is not bool
        and not any(isinstance(r, Rule) for r in getattr(kind, "__metadata__", ()))
    }
    assert free == {
        *("boundary_gradient_scale", "boundary_gradient_scales"),
        *("boundary_gradient_phases", "encoder.name", "encoder.revision"),
        *("encoder.ignore_attributes", "data.task", "data.revision"),
        *("data.train_file", "data.validation_file", "data.test_file"),
        *("data.label_column", "papa.constants_of"),
    }


def test_defaults_keep_their_rules():
    flat = flatten_settings(from_config_dict({}))
    # What follows from the rows is filled in when they are known.
    open_fields = {name for name, value in flat.items() if value == AUTO}
    assert open_fields == {
        "data.calibration_examples",
        "train.contrastive_epochs",
        "train.num_epochs",
    }
    check_rules(find_types(Settings), flat, open_fields)
