"""Rules for the value of one field, written beside the field as its annotation.

    batch_size: Annotated[int, Range(1)] = 16

A rule of a list holds for each of its items, except `Rising` and `Length`.
"""

import abc
import dataclasses
import itertools
import re
import typing
from collections.abc import Collection, Mapping
from typing import Any

from sweet_jax.system.names import describe_unknown
from sweet_jax.system.registry import Registry


class SettingsError(ValueError):
    """A setting is wrong: one line with the value, what is allowed and what to do."""


class Rule(abc.ABC):
    """What the value of a field may be."""

    @abc.abstractmethod
    def check(self, name: str, value: Any) -> None:
        """Raises SettingsError, with the field's name, unless the value is allowed."""


@dataclasses.dataclass(frozen=True)
class Range(Rule):
    """Numbers from `low` to `high`, both included; None: no upper bound."""

    low: int | float
    high: int | float | None = None

    def check(self, name: str, value: Any) -> None:
        """See `Rule.check`."""
        is_list = isinstance(value, tuple)
        for number in value if is_list else (value,):
            if number < self.low or (self.high is not None and number > self.high):
                bound = f"at least {self.low}"
                if self.high is not None:
                    bound = f"from {self.low} to {self.high}"
                each = "for each number " if is_list else ""
                raise SettingsError(f"{name}={value}: allowed {each}is {bound}")


class OneOf(Rule):
    """One of the given words, or a name in a registry."""

    def __init__(self, *words: str, registry: Registry[Any] | None = None) -> None:
        self._words = words
        self._registry = registry

    def check(self, name: str, value: Any) -> None:
        """See `Rule.check`. The message suggests the closest name."""
        for word in value if isinstance(value, tuple) else (value,):
            if word in self._words or (self._registry and word in self._registry):
                continue
            registered = () if self._registry is None else self._registry.names()
            allowed = (*self._words, *registered)
            raise SettingsError(describe_unknown(name, word, allowed))

    @property
    def words(self) -> tuple[str, ...]:
        """The words without those of the registry."""
        return self._words


@dataclasses.dataclass(frozen=True)
class Rising(Rule):
    """A list of rising, different numbers."""

    def check(self, name: str, value: Any) -> None:
        """See `Rule.check`."""
        if any(b <= a for a, b in itertools.pairwise(value)):
            raise SettingsError(
                f"{name}={value}: allowed are rising, different numbers"
            )


@dataclasses.dataclass(frozen=True)
class Length(Rule):
    """A list of `fewest` to `most` items (None: any number), which `allowed` names."""

    fewest: int
    most: int | None
    allowed: str

    def check(self, name: str, value: Any) -> None:
        """See `Rule.check`."""
        if len(value) < self.fewest or (
            self.most is not None and len(value) > self.most
        ):
            raise SettingsError(f"{name}={value}: allowed are {self.allowed}")


@dataclasses.dataclass(frozen=True)
class Even(Rule):
    """Even numbers."""

    def check(self, name: str, value: Any) -> None:
        """See `Rule.check`."""
        if value % 2:
            raise SettingsError(
                f"{name}={value}: allowed are even numbers, such as {value + 1}"
            )


@dataclasses.dataclass(frozen=True)
class Pattern(Rule):
    """Words that match a regular expression, which `allowed` puts in words."""

    regex: str
    allowed: str

    def check(self, name: str, value: Any) -> None:
        """See `Rule.check`."""
        for word in value if isinstance(value, tuple) else (value,):
            if not re.fullmatch(self.regex, word):
                raise SettingsError(f"{name}={word}: allowed are {self.allowed}")


def find_types(settings_class: type) -> dict[str, Any]:
    """Returns the type of each dotted field, as annotated, rules included."""
    types = {}
    for name, kind in typing.get_type_hints(
        settings_class, include_extras=True
    ).items():
        if dataclasses.is_dataclass(kind):
            inner = find_types(typing.cast(type, kind))
            types |= {f"{name}.{field}": hint for field, hint in inner.items()}
        else:
            types[name] = kind
    return types


def strip_rules(kind: Any) -> Any:
    """Returns the plain type of an annotation: `int`, `tuple[str, ...]`."""
    return typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def check_rules(
    types: Mapping[str, Any], values: Mapping[str, Any], unset: Collection[str] = ()
) -> None:
    """Checks fields against the rules beside them.

    Args:
        types: see `find_types`.
        values: dotted field -> its value.
        unset: fields that were not given and are filled in later.

    Raises:
        SettingsError: a value breaks a rule.
    """
    for name, kind in types.items():
        for rule in getattr(kind, "__metadata__", ()):
            if isinstance(rule, Rule) and name not in unset:
                rule.check(name, values[name])
