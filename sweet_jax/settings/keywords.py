"""Settings as keyword arguments: `num_epochs=2` instead of `train.num_epochs`."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from sweet_jax.settings.fields import Settings, flatten_settings
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.names import suggest

# Short names that more than one section has, or that libraries commonly use.
_SHORT_NAMES = {
    "batch_size": "train.batch_size",
    "dropout": "exits.dropout",
    "epochs": "train.num_epochs",
    "learning_rate": "optim.encoder_learning_rate",
}


def nest_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keyword arguments as the nested fields of a config.

    A keyword is the name of a field (`max_length`), with its section if several
    sections have that field (`evaluate.batch_size`), or one of `_SHORT_NAMES`. numpy
    numbers become Python numbers. None leaves a field at its default.

    Raises:
        SettingsError: a name is unknown or in several sections, or two names mean the
            same field.
    """
    nested: dict[str, Any] = {}
    given: dict[str, str] = {}
    for keyword, value in keywords.items():
        if value is None:
            continue
        field = _find_field(keyword)
        if field in given:
            raise SettingsError(
                f"{given[field]} and {keyword} are the same setting, {field}: drop one"
                " of the two"
            )
        given[field] = keyword
        section, _, name = field.rpartition(".")
        place = nested.setdefault(section, {}) if section else nested
        place[name] = _to_python(value)
    return nested


def _find_field(keyword: str) -> str:
    """Returns the dotted field that a keyword argument means."""
    fields = flatten_settings(Settings())
    if keyword in fields:
        return keyword
    if keyword in _SHORT_NAMES:
        return _SHORT_NAMES[keyword]
    by_name = defaultdict(list)
    for field in fields:
        by_name[field.rpartition(".")[2]].append(field)
    found = by_name.get(keyword, [])
    if len(found) == 1:
        return found[0]
    if found:
        ways = " or ".join(f'**{{"{field}": ...}}' for field in found)
        raise SettingsError(
            f"the setting {keyword!r} is in several sections: use {ways}"
        )
    known = {**dict.fromkeys(fields), **dict.fromkeys(by_name), **_SHORT_NAMES}
    hint = suggest(keyword, known, cutoff=0.5) or "docs/python.md lists them"
    raise SettingsError(f"unknown setting {keyword!r}: {hint}")


def _to_python(value: Any) -> Any:
    """Converts numpy scalars and arrays to Python numbers and lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return type(value)(map(_to_python, value))
    return value
