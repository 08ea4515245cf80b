"""How a config becomes settings: each value converted, resolved and checked."""

import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from sweet_jax.settings.fields import (
    AUTO,
    DataSettings,
    Settings,
    StudySettings,
    flatten_settings,
    list_fields,
    replace_fields,
)
from sweet_jax.settings.resolve import find_clip_scopes, resolve
from sweet_jax.settings.rules import (
    OneOf,
    SettingsError,
    check_rules,
    find_types,
    strip_rules,
)
from sweet_jax.settings.seams import check_seams, parse_method
from sweet_jax.system.names import suggest

# Two rows of each calibration part.
_LEAST_CALIBRATION = 4


def from_config_dict(config: Any) -> Settings:
    """Makes settings from a nested mapping, checked and with AUTO resolved.

    Args:
        config: a ConfigDict or a dict; fields that are absent take their defaults.

    Raises:
        SettingsError: an unknown key, a value of the wrong type or out of range, or
            fields that contradict each other.
    """
    defaults = flatten_settings(Settings())
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            if name not in {key.split(".")[0] for key in defaults if "." in key}:
                raise make_unknown_key_error(name, defaults)
            flat.update({f"{name}.{key}": v for key, v in value.items()})
        else:
            flat[name] = value
    changes = {}
    for name, value in flat.items():
        if name not in defaults:
            raise make_unknown_key_error(name, defaults)
        changes[name] = _convert(name, value, list_fields()[name])
    for name, value in parse_method(changes.pop("method", Settings.method)).items():
        if name in changes and changes[name] not in (defaults[name], value):
            raise SettingsError(
                f"{name}={changes[name]} contradicts method={flat['method']}: drop one"
                " of the two"
            )
        changes[name] = value
    settings = resolve(replace_fields(Settings(), changes))
    _check(settings)
    return settings


def study_from_config_dict(config: Any) -> tuple[dict[str, Any], StudySettings]:
    """Splits the config of a study into what its runs share and what it compares.

    Args:
        config: nested, with a section `study`.

    Returns:
        The other fields, nested, unresolved, and the study's own.

    Raises:
        SettingsError: the section has an unknown key or a value of the wrong type.
    """
    base, fields = take_section(config, "study")
    return base, StudySettings(**fields)


def take_section(config: Any, section: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a config into its other fields, nested, and those of a section, converted.

    Args:
        config: nested, with that section.
        section: one of `OTHER_SECTIONS`.

    Raises:
        SettingsError: the section has an unknown key or a value of the wrong type.
    """
    types = {n: t for n, t in list_fields().items() if n.startswith(f"{section}.")}
    fields = {}
    for name, value in config[section].items():
        if (full_name := f"{section}.{name}") not in types:
            raise make_unknown_key_error(full_name, types)
        fields[name] = _convert(full_name, value, types[full_name])
    base = {
        name: dict(value) if hasattr(value, "items") else value
        for name, value in config.items()
        if name != section
    }
    return base, fields


def parse_config_string(text: str) -> dict[str, Any]:
    """Parses the part of `--config=file.py:key=value,...` after the colon.

    Returns:
        Dotted field names to values, from the keys task, encoder, method and seed; a
        method such as `sweet(a=0.2)` gives two.

    Raises:
        SettingsError: a part is not key=value, or the key is another one.
    """
    names = {
        "task": "data.task",
        "encoder": "encoder.name",
        "method": "method",
        "seed": "seed",
    }
    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not separator or key not in names:
            raise SettingsError(
                f"config string part {part!r}: allowed are key=value with the keys"
                f" {', '.join(names)}; other fields go as --config.section.field=value"
            )
        if key == "seed" and not value.isdecimal():
            raise SettingsError(f"seed={value!r} must be a whole number of 0 or more")
        if key == "method":
            fields |= parse_method(value)
        else:
            fields[names[key]] = int(value) if key == "seed" else value
    return fields


def make_unknown_key_error(name: str, allowed: Iterable[str]) -> SettingsError:
    """Returns the error for a dotted field that is none of those allowed."""
    hint = suggest(name, allowed, cutoff=0.5, most=3)
    hint = hint or "see sweet_jax/settings/fields.py"
    return SettingsError(f"unknown config key {name!r}: {hint}")


def _convert(name: str, value: Any, annotation: Any) -> Any:
    """Returns the value in the type of its field, or raises SettingsError."""
    kind = strip_rules(annotation)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str) or is_number:
            value = (value,)
        if isinstance(value, tuple | list):
            item = typing.get_args(kind)[0]
            return tuple(_convert(f"{name}[{i}]", v, item) for i, v in enumerate(value))
    elif kind in (bool, str):
        if isinstance(value, kind):
            return value
    elif is_number:
        if not math.isfinite(value):
            raise SettingsError(f"{name}={value}: allowed are finite numbers")
        if kind is float or value == int(value):
            return kind(value)
    expected = "a list" if typing.get_origin(kind) is tuple else kind.__name__
    raise SettingsError(
        f"{name}={value!r} is a {type(value).__name__}, expected {expected}"
    )


def _check(settings: Settings) -> None:
    """Raises SettingsError where a field breaks its rules or contradicts another."""
    flat, not_given = flatten_settings(settings), flatten_settings(Settings())
    # Under faithful_release the encoder fills in the rest, later.
    unset = {n for n, v in flat.items() if v == not_given[n] == AUTO}
    check_rules(find_types(Settings), flat, unset)
    check_seams(settings)
    OneOf(*find_clip_scopes(settings.method)).check(
        f"optim.clip_scope of method={settings.method}", settings.optim.clip_scope
    )
    if settings.exits.init == "probe" and settings.exits.pooler_init == "checkpoint":
        raise SettingsError(
            "exits.pooler_init=checkpoint contradicts exits.init=probe, which sets the"
            " poolers: set exits.pooler_init=fresh, or exits.init=random"
        )
    if settings.exits.init == "random" and settings.train.contrastive_epochs > 0:
        raise SettingsError(
            f"train.contrastive_epochs={settings.train.contrastive_epochs} contradicts"
            " exits.init=random: after these epochs exits start anew, as probes; set"
            " exits.init=probe, or train.contrastive_epochs=0"
        )
    if "lte" in settings.evaluate.criteria and not settings.exits.learn_to_exit:
        raise SettingsError(
            "evaluate.criteria names lte, whose heads are trained only with"
            " exits.learn_to_exit=True: set that, or leave lte out"
        )
    if settings.train.batch_size % settings.train.accumulate_steps:
        raise SettingsError(
            f"train.accumulate_steps={settings.train.accumulate_steps} must divide"
            f" train.batch_size={settings.train.batch_size}"
        )
    _check_few_shot(settings.data)
    _check_gradient_conflict(settings)


def _check_few_shot(data: DataSettings) -> None:
    """Raises SettingsError if numbers of rows contradict each other or are too low."""
    if data.shots and data.max_train_examples:
        raise SettingsError(
            f"data.shots={data.shots} and data.max_train_examples="
            f"{data.max_train_examples} both say how many rows to train on: drop one"
            " (data.max_train_examples=0 where a config file sets it)"
        )
    if 0 < data.calibration_examples < _LEAST_CALIBRATION:
        raise SettingsError(
            f"data.calibration_examples={data.calibration_examples}: allowed is 0, for"
            f" calibration without labels, or at least {_LEAST_CALIBRATION}"
        )


def _check_gradient_conflict(settings: Settings) -> None:
    """Raises SettingsError if gradients are to be compared where none can conflict."""
    if "gradient_conflict" not in settings.analysis.wanted:
        return
    if settings.method == "multi_model" or len(settings.exits.layers) == 1:
        what = (
            "the models of method=multi_model share no weights"
            if settings.method == "multi_model"
            else f"exits.layers={settings.exits.layers} is a single exit"
        )
        raise SettingsError(
            f"analysis.gradient_conflict=True, but {what}: drop it, or set"
            " method=early_exit and two exits or more"
        )
