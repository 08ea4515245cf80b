"""Registries: names that settings, commands and files use, and what they stand for.

Each kind of extension (methods, criteria, metrics, ...) has one registry. A package
adds to it by calling its `register` function, or without being imported by anybody,
through an entry point in its own pyproject.toml:

    [project.entry-points."sweet_jax.criteria"]
    my_criterion = "my_package.criteria:my_criterion"

Looking up our own names loads no entry point; asking for another name does.
"""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from sweet_jax.system.names import describe_unknown

T = TypeVar("T")

# Names become keys of JSON, parts of file names and words of the command line.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Registry(Generic[T]):
    """Names and what they stand for, in the order in which they were registered.

    Safe to use from several threads.

    Attributes:
        kind: what is registered, in the singular, as messages call it: `criterion`.
        group: of entry points that add to it; empty: none do.
        check: raises ValueError for a value that cannot serve under the name; our own
            values are not checked. The module of the values may set it: a registry of
            the settings' knows nothing of what lies above them.
    """

    def __init__(
        self,
        kind: str,
        group: str = "",
        *,
        builtin: Iterable[str] = (),
        check: Callable[[str, T], None] | None = None,
    ) -> None:
        """Loads nothing yet.

        Args:
            kind: see the attribute.
            group: see the attribute.
            builtin: names of our own, known before the module that registers them is
                imported: settings are checked without importing jax.
            check: see the attribute.
        """
        self.kind, self.group = kind, group
        self._builtin = tuple(builtin)
        self.check = check
        self._values: dict[str, T] = {}
        self._entry_points: dict[str, Any] | None = None
        self._lock = threading.RLock()

    @overload
    def register(self, name: str, value: T, *, replace: bool = False) -> T: ...
    @overload
    def register(
        self, name: str, value: None = None, *, replace: bool = False
    ) -> Callable[[T], T]: ...
    def register(self, name: Any, value: Any = None, *, replace: bool = False) -> Any:
        """Adds a name; without a value, returns a decorator that adds it.

        Args:
            name: lower-case letters, digits and underscores.
            value: what it stands for.
            replace: take the name over from an earlier registration, as when a cell of
                a notebook runs again; our own names cannot be taken over.

        Returns:
            The value, unchanged.

        Raises:
            ValueError: the name is taken or malformed, or the value is refused.
        """
        with self._lock:
            self.check_new(name, replace)
            if value is None:
                return lambda value: self.register(name, value, replace=replace)
            if self.check is not None and name not in self._builtin:
                self.check(name, value)
            self._values[name] = value
        return value

    def check_new(self, name: Any, replace: bool = False) -> None:
        """Raises ValueError if the name is taken or malformed.

        Decorators call it before they have anything to register: one that is used
        without a name takes the function for it.
        """
        if callable(name):
            raise ValueError(
                f"{self.kind}: a name comes first, as in"
                f' register_{self.kind}("my_{self.kind}")'
            )
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"{self.kind} {name!r}: a name is up to 64 lower-case letters, digits"
                " and underscores, and begins with a letter; choose such a name"
            )
        if name in self._values and (name in self._builtin or not replace):
            advice = "choose another name"
            if name not in self._builtin:
                advice += ", or pass replace=True to replace it"
            raise ValueError(f"{self.kind} {name!r} is registered already: {advice}")

    def lookup(self, name: str) -> T:
        """Returns what the name stands for.

        Raises:
            ValueError: the name is unknown, or the package that adds it fails.
        """
        with self._lock:
            if name not in self._values:
                self.check_name(name)
                self._load(name)
            return self._values[name]

    def check_name(self, name: str) -> None:
        """Raises ValueError, with the closest name, if the name is unknown.

        It loads no value: whoever checks settings need not wait for imports.
        """
        if name not in self:
            raise ValueError(describe_unknown(self.kind, name, self.names()))

    def names(self) -> tuple[str, ...]:
        """Returns all names: ours, those of entry points, those registered."""
        with self._lock:
            return tuple(
                dict.fromkeys((*self._builtin, *self._values, *self._find_entries()))
            )

    def is_builtin(self, name: str) -> bool:
        """Whether the name is one of ours."""
        return name in self._builtin

    def __contains__(self, name: object) -> bool:
        """Whether the name is known; its value may not be loaded yet."""
        with self._lock:
            return (
                name in self._builtin
                or name in self._values
                or name in self._find_entries()
            )

    def _find_entries(self) -> dict[str, Any]:
        """Returns the entry points of installed packages by name, read once."""
        if self._entry_points is None:
            self._entry_points = {}
            if self.group:
                # Reads the metadata of every installed package: not before it is asked.
                from importlib import metadata

                for entry in metadata.entry_points(group=self.group):
                    first = self._entry_points.setdefault(entry.name, entry)
                    if entry.name in self._builtin or first.value != entry.value:
                        raise ValueError(
                            f"{self.kind} {entry.name!r} of {_name_package(entry)} is"
                            f" taken by {_name_owner(entry, first, self._builtin)}:"
                            " uninstall one of the two packages, or rename it there"
                        )
        return self._entry_points

    def _load(self, name: str) -> None:
        entry = self._find_entries().get(name)
        assert entry is not None, f"{self.kind} {name}: its module registers it"
        try:
            value = entry.load()
        except Exception as error:
            raise ValueError(
                f"{self.kind} {name!r} cannot be loaded from {_name_package(entry)}"
                f" ({entry.value}: {type(error).__name__}: {error}): repair that"
                " package, or uninstall it"
            ) from error
        # Its module may have registered it while it was imported.
        if name not in self._values:
            self.register(name, value)


def _name_package(entry: Any) -> str:
    return f"the package {entry.dist.name}" if entry.dist else "an entry point"


def _name_owner(entry: Any, first: Any, builtin: tuple[str, ...]) -> str:
    return "sweet_jax itself" if entry.name in builtin else _name_package(first)
