"""Registries map the names in settings, commands and files to objects.

Each kind of extension (methods, criteria, metrics, ...) has one registry. A package
adds to it by calling its `register` function, or, without being imported, by an entry
point in its own pyproject.toml:

    [project.entry-points."sweet_jax.criteria"]
    my_criterion = "my_package.criteria:my_criterion"

Looking up a built-in name loads no entry point; looking up another name does.
"""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from sweet_jax.system.errors import describe_error
from sweet_jax.system.names import describe_unknown

T = TypeVar("T")

# Names become keys of JSON, parts of file names and words of the command line.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Registry(Generic[T]):
    """A map from names to objects, in order of registration; thread-safe.

    Attributes:
        kind: the noun for one object in messages, such as `criterion`.
        group: the entry point group that adds to it; empty: there is none.
        check: raises ValueError for an unsuitable value; built-in values are not
            checked. The module that defines the values may set it, since the registries
            of `settings` cannot import that module.
    """

    def __init__(
        self,
        kind: str,
        group: str = "",
        *,
        builtin: Iterable[str] = (),
        check: Callable[[str, T], None] | None = None,
    ) -> None:
        """Makes the registry; no value is loaded yet.

        Args:
            kind: see the attribute.
            group: see the attribute.
            builtin: our own names. They are known before the module that registers them
                is imported, so that settings are checked without importing jax.
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
            value: the object to register.
            replace: replace an earlier registration, for example when a notebook cell
                runs again; built-in names cannot be replaced.

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

        Decorators call it first: a decorator used without a name gets the function as
        its name.
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
        """Returns the object registered under the name.

        Raises:
            ValueError: the name is unknown, or the package that adds it cannot load.
        """
        with self._lock:
            if name not in self._values:
                self.check_name(name)
                self._load(name)
            return self._values[name]

    def check_name(self, name: str) -> None:
        """Raises ValueError, with the closest name, if the name is unknown.

        It loads no value, so that checking settings does not wait for imports.
        """
        if name not in self:
            raise ValueError(describe_unknown(self.kind, name, self.names()))

    def names(self) -> tuple[str, ...]:
        """Returns all names: built-in, registered and of entry points."""
        with self._lock:
            return tuple(
                dict.fromkeys((*self._builtin, *self._values, *self._find_entries()))
            )

    def is_builtin(self, name: str) -> bool:
        """Whether the name is built in."""
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
                # Reads the metadata of every installed package, so only on demand.
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
                f" ({entry.value}: {describe_error(error)}): repair that package,"
                " or uninstall it"
            ) from error
        # Its module may have registered it while it was imported.
        if name not in self._values:
            self.register(name, value)


def _name_package(entry: Any) -> str:
    return f"the package {entry.dist.name}" if entry.dist else "an entry point"


def _name_owner(entry: Any, first: Any, builtin: tuple[str, ...]) -> str:
    return "sweet_jax itself" if entry.name in builtin else _name_package(first)
