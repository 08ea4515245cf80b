"""How a config becomes settings: each value converted, resolved and checked."""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Mapping
from typing import Any

from sweet_jax.settings.fields import (
    AUTO,
    CRITERIA,
    LOGIT_CRITERIA,
    METHODS,
    Settings,
    SettingsError,
    StudySettings,
    check_choice,
    check_exit_layers,
    flatten_settings,
    replace_fields,
)
from sweet_jax.settings.seams import check_seams, parse_method

# What fields that are not given stand for. All methods share them, rates and epochs
# too, so that a comparison differs in the method alone; docs/defaults.md says how they
# were found.
_SHARED_DEFAULTS: dict[str, Any] = {
    "boundary_gradient_scale": 0.0,
    "exits.pooling": "mean",
    "exits.pooler_init": "fresh",
    "exits.dropout": 0.1,
    "data.max_train_examples": 2000,
    "data.max_length": 128,
    "data.buckets": (16, 32, 48, 64, 96, 128, 192, 256, 384, 512),
    "optim.encoder_learning_rate": 1e-4,
    "optim.exit_learning_rate": 1e-3,
    "optim.warmup_percent": 10.0,
    "optim.weight_decay": 0.01,
    "optim.epsilon_mode": "after_correction",
    "train.num_epochs": 3,
    "evaluate.criteria": LOGIT_CRITERIA,
}
# Whose gradient norm is limited: the first is the default.
_CLIP_SCOPES: Mapping[str, tuple[str, ...]] = dict.fromkeys(METHODS, ("global",)) | {
    "sweet": ("segment", "global"),
    "multi_model": ("member",),
}
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    method: {**_SHARED_DEFAULTS, "optim.clip_scope": _CLIP_SCOPES[method][0]}
    for method in METHODS
}

# The released code's own choices: the command of its README, and what the Trainer of
# that time takes where the command says nothing (docs/released-code.md).
FAITHFUL_RELEASE: dict[str, Any] = {
    "encoder.dtype": "float32",
    "exits.pooling": "cls",
    "optim.encoder_learning_rate": 5e-5,
    "optim.exit_learning_rate": 5e-5,
    "optim.schedule": "linear",
    "optim.warmup_percent": 0.0,
    "optim.weight_decay": 0.0,
    "optim.epsilon_mode": "before_correction",
    "optim.clip_norm": 1.0,
    "optim.clip_scope": "global",
    "data.max_train_examples": 6000,
    "data.max_length": 256,
    "data.buckets": (256,),
    "train.batch_size": 16,
    "train.num_epochs": 2,
    "train.select": "last",
    "boundary_gradient_scale": 0.0,
    "boundary_gradient_scales": (),
    "boundary_gradient_phases": (),
}
# What it takes from the encoder, once that is known: `resolve_released_exits`.
_RELEASED_EXITS = ("exits.dropout", "exits.pooler_init")
# The methods and families that the released code has.
_RELEASED_METHODS = ("sweet", "early_exit", "multi_model")
_RELEASED_FAMILIES = ("bert", "deberta")

_CHOICES = {
    "method": METHODS,
    "data.metric": ("auto", "accuracy", "matthews", "f1"),
    "encoder.dtype": ("float32", "bfloat16"),
    "encoder.matmul_precision": ("default", "high", "highest"),
    "exits.pooling": ("auto", "mean", "cls"),
    "exits.pooler_init": ("auto", "fresh", "checkpoint"),
    "optim.schedule": ("linear", "constant"),
    "optim.clip_scope": ("auto", "segment", "global", "member"),
    "optim.epsilon_mode": ("auto", "after_correction", "before_correction"),
    "train.select": ("last", "best"),
}

# field -> (lowest, highest) with None for no bound; AUTO stands for "not given" where
# it is the default.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**31 - 1),
    "exits.dropout": (0, 0.99),
    "data.max_train_examples": (0, None),
    "data.calibration_examples": (4, None),
    "data.max_length": (3, None),
    "optim.encoder_learning_rate": (0, 1),
    "optim.exit_learning_rate": (0, 1),
    "optim.warmup_percent": (0, 100),
    "optim.weight_decay": (0, None),
    "optim.clip_norm": (0, None),
    "train.batch_size": (1, None),
    "train.num_epochs": (1, None),
    "train.checkpoint_every_steps": (1, None),
    "train.accumulate_steps": (1, None),
    "evaluate.num_thresholds": (2, 10001),
    "evaluate.batch_size": (1, None),
    "analysis.num_batches": (1, None),
}


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
                raise _unknown_key(name, defaults)
            flat.update({f"{name}.{key}": v for key, v in value.items()})
        else:
            flat[name] = value
    changes = {}
    for name, value in flat.items():
        if name not in defaults:
            raise _unknown_key(name, defaults)
        changes[name] = _convert(name, value, defaults[name])
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
    defaults = {
        f"study.{field.name}": field.default
        for field in dataclasses.fields(StudySettings)
    }
    fields = {}
    for name, value in config["study"].items():
        if f"study.{name}" not in defaults:
            raise _unknown_key(f"study.{name}", defaults)
        fields[name] = _convert(f"study.{name}", value, defaults[f"study.{name}"])
    base = {
        name: dict(value) if hasattr(value, "items") else value
        for name, value in config.items()
        if name != "study"
    }
    return base, StudySettings(**fields)


def resolve(settings: Settings) -> Settings:
    """Returns settings whose fields that were not given hold their values.

    These are the method's, or the released code's under `faithful_release`, where two
    wait for the encoder (`resolve_released_exits`).

    Raises:
        SettingsError: the method is unknown, or a field contradicts faithful_release.
    """
    check_choice("method", settings.method, METHODS)
    values = dict(METHOD_DEFAULTS[settings.method])
    if settings.exits.learn_to_exit:
        values["evaluate.criteria"] = CRITERIA
    if settings.faithful_release:
        check_choice(
            "method with faithful_release=True", settings.method, _RELEASED_METHODS
        )
        release = dict(FAITHFUL_RELEASE)
        if settings.method == "multi_model":
            release["optim.clip_scope"] = "member"
        _check_release(settings, release)
        values |= release
        for name in _RELEASED_EXITS:
            del values[name]
    flat, not_given = flatten_settings(settings), flatten_settings(Settings())
    return replace_fields(
        settings,
        {name: v for name, v in values.items() if flat[name] == not_given[name]},
    )


def check_released_family(settings: Settings, family: str) -> None:
    """Raises SettingsError where faithful_release meets an encoder it does not have."""
    if settings.faithful_release and family not in _RELEASED_FAMILIES:
        raise SettingsError(
            f"faithful_release=True with the {family} encoder {settings.encoder.name}:"
            f" the released code has {' and '.join(_RELEASED_FAMILIES)} only; set"
            " encoder.name to one of these, or drop faithful_release"
        )


def resolve_released_exits(
    settings: Settings, dropout: float, has_pooler: bool
) -> Settings:
    """Returns settings of faithful_release whose exits are those of the encoder.

    Args:
        settings: resolved, with faithful_release.
        dropout: that its config.json gives to classifiers.
        has_pooler: its checkpoint has a pooler; without one the released code starts
            from a fresh one, as `from_pretrained` does.

    Raises:
        SettingsError: a given field is another one.
    """
    release = {
        "exits.dropout": dropout,
        "exits.pooler_init": "checkpoint" if has_pooler else "fresh",
    }
    _check_release(settings, release)
    return replace_fields(settings, release)


def _check_release(settings: Settings, release: Mapping[str, Any]) -> None:
    """Raises SettingsError where a given field is another one in the released code."""
    flat, not_given = flatten_settings(settings), flatten_settings(Settings())
    for name, value in release.items():
        if flat[name] not in (not_given[name], value):
            raise SettingsError(
                f"{name}={flat[name]} contradicts faithful_release=True, which means"
                f" {name}={value}: set that, or drop faithful_release"
            )


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


def _unknown_key(name: str, defaults: Mapping[str, Any]) -> SettingsError:
    close = difflib.get_close_matches(name, defaults, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else "see sweet_jax/settings/fields.py"
    )
    return SettingsError(f"unknown config key {name!r}: {hint}")


def _convert(name: str, value: Any, default: Any) -> Any:
    """Returns the value in the default's type, or raises SettingsError."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(default, tuple):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            value = (value,)
        if isinstance(value, tuple | list):
            item_type = _item_type(name, default)
            return tuple(
                _convert(f"{name}[{i}]", v, item_type()) for i, v in enumerate(value)
            )
    elif isinstance(default, str):
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise SettingsError(f"{name}={value}: allowed are finite numbers")
        if isinstance(default, float):
            return float(value)
        if value == int(value):
            return int(value)
    expected = "a list" if isinstance(default, tuple) else type(default).__name__
    raise SettingsError(
        f"{name}={value!r} is a {type(value).__name__}, expected {expected}"
    )


def _item_type(name: str, default: tuple[Any, ...]) -> type:
    if default:
        return type(default[0])
    if name in _EMPTY_LISTS:
        return _EMPTY_LISTS[name]
    return str


# Of what the lists are that are empty by default; the others hold strings.
_EMPTY_LISTS: dict[str, type] = {
    "boundary_gradient_scales": float,
    "boundary_gradient_phases": float,
    "data.buckets": int,
    "exits.layers": int,
    "study.train_sizes": int,
    "study.encoder_rates": float,
    "study.exit_rates": float,
}


def _check(settings: Settings) -> None:
    """Raises SettingsError where a field is out of range or contradicts another."""
    flat, not_given = flatten_settings(settings), flatten_settings(Settings())
    for name, allowed in _CHOICES.items():
        check_choice(name, flat[name], allowed)
    for name, (low, high) in _RANGES.items():
        value = flat[name]
        if value == not_given[name] == AUTO:
            continue  # The encoder says it, later.
        if (low is not None and value < low) or (high is not None and value > high):
            bound = f"at least {low}" if high is None else f"from {low} to {high}"
            raise SettingsError(f"{name}={value}: allowed is {bound}")
    check_seams(settings)
    check_choice(
        f"optim.clip_scope of method={settings.method}",
        settings.optim.clip_scope,
        _CLIP_SCOPES[settings.method],
    )
    check_exit_layers(settings.exits.layers)
    for criterion in settings.evaluate.criteria:
        check_choice("evaluate.criteria", criterion, CRITERIA)
    if "lte" in settings.evaluate.criteria and not settings.exits.learn_to_exit:
        raise SettingsError(
            "evaluate.criteria names lte, whose heads are trained only with"
            " exits.learn_to_exit=True: set that, or leave lte out"
        )
    if any(s < 1 for s in settings.evaluate.speedups):
        raise SettingsError(
            f"evaluate.speedups={settings.evaluate.speedups}: allowed is 1 or more"
        )
    _check_analysis(settings)
    if settings.train.batch_size % settings.train.accumulate_steps:
        raise SettingsError(
            f"train.accumulate_steps={settings.train.accumulate_steps} must divide"
            f" train.batch_size={settings.train.batch_size}"
        )
    buckets = settings.data.buckets
    if any(b <= a for a, b in itertools.pairwise(buckets)):
        raise SettingsError(f"data.buckets={buckets}: allowed are rising lengths")
    if len(settings.data.text_columns) > 2:
        raise SettingsError(
            f"data.text_columns={settings.data.text_columns}: allowed are one or two"
        )


def _check_analysis(settings: Settings) -> None:
    """Raises SettingsError where gradient conflict has nothing, or no time, to see."""
    percents = settings.analysis.steps_percent
    if not percents or not all(0 <= percent <= 100 for percent in percents):
        raise SettingsError(
            f"analysis.steps_percent={percents}: allowed are one or more numbers from 0"
            " to 100"
        )
    if not settings.analysis.gradient_conflict:
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
