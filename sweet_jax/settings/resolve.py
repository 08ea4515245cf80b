"""Fills in the fields that were not given: by the method, or as the release does."""

import math
from collections.abc import Mapping
from typing import Any

from sweet_jax.settings.fields import (
    AUTO,
    Settings,
    flatten_settings,
    replace_fields,
)
from sweet_jax.settings.registries import (
    BUILTIN_CRITERIA,
    BUILTIN_METHODS,
    LOGIT_CRITERIA,
    METHODS,
)
from sweet_jax.settings.rules import OneOf, SettingsError

# What fields that are not given stand for. All methods share them, learning rates and
# epochs too, so that a comparison differs in the method alone; docs/defaults.md says
# how they were found.
_SHARED_DEFAULTS: dict[str, Any] = {
    "boundary_gradient_scale": 0.0,
    "exits.pooling": "mean",
    "exits.pooler_init": "fresh",
    "exits.init": "probe",
    "exits.dropout": 0.1,
    "data.max_train_examples": 2000,
    "data.max_length": 128,
    "data.buckets": (16, 32, 48, 64, 96, 128, 192, 256, 384, 512),
    "optim.encoder_learning_rate": 1e-4,
    "optim.exit_learning_rate": 1e-3,
    "optim.warmup_percent": 10.0,
    "optim.weight_decay": 0.01,
    "optim.epsilon_mode": "after_correction",
    "evaluate.criteria": LOGIT_CRITERIA,
}
# Passes over the training rows, or more, until there are so many steps.
_LEAST_EPOCHS, _LEAST_STEPS = 3, 300
# With fewer classes these further passes are as the others, and none is contrastive.
_LEAST_CLASSES = 5
# Whose gradient norm is limited: the first is the default.
_CLIP_SCOPES: Mapping[str, tuple[str, ...]] = {
    "sweet": ("segment", "global"),
    "multi_model": ("member",),
}
# Nothing is known of the seams of a method from elsewhere.
_OTHER_CLIP_SCOPES = ("global", "segment", "member")

# The released code's own choices: the command of its README, and what the Trainer of
# that time takes where the command says nothing (docs/released-code.md).
FAITHFUL_RELEASE: dict[str, Any] = {
    "encoder.dtype": "float32",
    "exits.pooling": "cls",
    "exits.init": "random",
    "optim.encoder_learning_rate": 5e-5,
    "optim.exit_learning_rate": 5e-5,
    "optim.schedule": "linear",
    "optim.warmup_percent": 0.0,
    "optim.weight_decay": 0.0,
    "optim.epsilon_mode": "before_correction",
    "optim.clip_norm": 1.0,
    "optim.clip_scope": "global",
    "data.max_train_examples": 6000,
    "data.shots": 0,
    "data.max_length": 256,
    "data.buckets": (256,),
    "train.batch_size": 16,
    "train.num_epochs": 2,
    "train.contrastive_epochs": 0,
    "train.select": "last",
    "train.class_weights": "none",
    "boundary_gradient_scale": 0.0,
    "boundary_gradient_scales": (),
    "boundary_gradient_phases": (),
}
# What it takes from the encoder, once that is known: `resolve_released_exits`.
_RELEASED_EXITS = ("exits.dropout", "exits.pooler_init")
# The methods and families that the released code has.
_RELEASED_METHODS = ("sweet", "early_exit", "multi_model")
_RELEASED_FAMILIES = ("bert", "deberta")


def find_defaults(method: str) -> dict[str, Any]:
    """Returns the dotted fields that a method fills in where they are not given."""
    return {**_SHARED_DEFAULTS, "optim.clip_scope": find_clip_scopes(method)[0]}


def find_clip_scopes(method: str) -> tuple[str, ...]:
    """Returns the values of optim.clip_scope that fit a method, its default first."""
    if method in _CLIP_SCOPES:
        return _CLIP_SCOPES[method]
    return ("global",) if method in BUILTIN_METHODS else _OTHER_CLIP_SCOPES


def resolve(settings: Settings) -> Settings:
    """Returns settings whose fields that were not given hold their values.

    These are the method's, or the released code's under `faithful_release`, where two
    wait for the encoder (`resolve_released_exits`). The number of epochs waits for the
    training rows (`resolve_epochs`).

    Raises:
        SettingsError: the method is unknown, or a field contradicts faithful_release.
    """
    OneOf(registry=METHODS).check("method", settings.method)
    values = find_defaults(settings.method)
    values["data.task"] = _infer_task(settings)
    if settings.exits.pooler_init == "checkpoint":
        values["exits.init"] = "random"  # A probe would replace the pooler.
    if settings.data.shots:
        values["data.max_train_examples"] = 0  # All rows that are drawn.
        values["data.calibration_examples"] = 0
    if settings.exits.learn_to_exit:
        values["evaluate.criteria"] = BUILTIN_CRITERIA
    if settings.faithful_release:
        OneOf(*_RELEASED_METHODS).check(
            "method with faithful_release=True", settings.method
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


def resolve_epochs(settings: Settings, num_rows: int, num_classes: int) -> Settings:
    """Returns settings with train.num_epochs and contrastive_epochs filled in.

    Args:
        settings: resolved.
        num_rows: number of training rows.
        num_classes: number of classes C.
    """
    train = settings.train
    num_epochs, contrastive = train.num_epochs, train.contrastive_epochs
    least = math.ceil(_LEAST_STEPS / math.ceil(num_rows / train.batch_size))
    if contrastive == AUTO:
        chooses = (
            num_classes >= _LEAST_CLASSES
            and num_epochs == AUTO
            and settings.exits.init == "probe"
            and settings.method in BUILTIN_METHODS
        )
        contrastive = max(0, least - _LEAST_EPOCHS) if chooses else 0
    if num_epochs == AUTO:
        num_epochs = max(_LEAST_EPOCHS, least - contrastive)
    return replace_fields(
        settings,
        {"train.num_epochs": num_epochs, "train.contrastive_epochs": contrastive},
    )


def _infer_task(settings: Settings) -> str:
    """Returns what data.task=auto stands for.

    Raises:
        SettingsError: files are given, and a task with rows of its own.
    """
    task = settings.data.task
    fields = ("train_file", "validation_file", "test_file")
    given = [name for name in fields if getattr(settings.data, name)]
    if not given:
        return "rotten_tomatoes"
    if task not in ("auto", "file"):
        raise SettingsError(
            f"data.task={task} has rows of its own, and data.{given[0]}="
            f"{getattr(settings.data, given[0])} gives others: leave one of the two out"
        )
    return "file"


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
