"""How a config with the section `papa` becomes settings."""

import dataclasses
from typing import Any

from sweet_jax.settings.fields import AUTO, PapaSettings, Settings
from sweet_jax.settings.from_config import (
    from_config_dict,
    make_unknown_key_error,
    take_section,
)
from sweet_jax.settings.rules import SettingsError, check_rules, find_types

# What else the analysis reads of a config.
PAPA_SECTIONS = ("seed", "encoder", "data")
# What fields that are not given stand for; docs/papa.md says how they were found.
_DEFAULTS: dict[str, Any] = {
    "batch_size": 32,
    "num_epochs": 10,
    "ranking_epochs": 2,
    "learning_rate": 1e-4,
    "gate_learning_rate": 1e-2,
    "dropout": 0.1,
    "states": "kept",
}
# In the released code: the commands of its README (CoLA, BERT-base). The dropout waits
# for the encoder.
_RELEASE: dict[str, Any] = {
    "batch_size": 16,
    "num_epochs": 15,
    "ranking_epochs": 15,
    "learning_rate": 2e-5,
    "gate_learning_rate": 2e-5,
    "states": "streamed",
}


def papa_from_config_dict(config: Any) -> tuple[Settings, PapaSettings]:
    """Returns the settings of encoder and rows, and those of the analysis, resolved.

    Args:
        config: nested, with a section `papa`.

    Raises:
        SettingsError: an unknown key, a value of the wrong type or out of range, a
            field that the analysis does not read, or fields that contradict each other.
    """
    base, fields = take_section(config, "papa")
    papa = PapaSettings(**fields)
    unset = {
        f"papa.{name}" for name, v in dataclasses.asdict(papa).items() if v == AUTO
    }
    types = {f"papa.{name}": t for name, t in find_types(PapaSettings).items()}
    values = {f"papa.{name}": v for name, v in dataclasses.asdict(papa).items()}
    check_rules(types, values, unset)
    papa = _resolve(papa)
    _check_base(base)
    data = dict(base.get("data", {}))
    if papa.faithful_release and data.get("max_train_examples", AUTO) == AUTO:
        base = {**base, "data": {**data, "max_train_examples": 0}}
    return from_config_dict(base), papa


def _resolve(papa: PapaSettings) -> PapaSettings:
    """Returns settings whose fields that were not given hold their values.

    Raises:
        SettingsError: a field contradicts faithful_release.
    """
    values = dict(_DEFAULTS)
    not_given = PapaSettings()
    if papa.faithful_release:
        values = _RELEASE
        for name, value in _RELEASE.items():
            if getattr(papa, name) not in (getattr(not_given, name), value):
                raise SettingsError(
                    f"papa.{name}={getattr(papa, name)} contradicts"
                    f" papa.faithful_release=True, which means papa.{name}={value}: set"
                    " that, or drop papa.faithful_release"
                )
    changes = {
        name: value
        for name, value in values.items()
        if getattr(papa, name) == getattr(not_given, name)
    }
    return dataclasses.replace(papa, **changes)


def _check_base(base: dict[str, Any]) -> None:
    """Raises SettingsError for fields that the analysis does not read."""
    if base.get("faithful_release"):
        raise SettingsError(
            "faithful_release=True means SWEET's released code: set"
            " papa.faithful_release=True for PAPA's"
        )
    for name in base:
        if name not in (*PAPA_SECTIONS, "faithful_release"):
            raise make_unknown_key_error(name, (*PAPA_SECTIONS, "papa"))
    data = base.get("data", {})
    for name, value in (("max_length", AUTO), ("buckets", ())):
        if data.get(name, value) not in (value, []):
            raise SettingsError(
                f"data.{name}={data[name]} is for training: the analysis cuts and pads"
                " all rows to papa.length"
            )
