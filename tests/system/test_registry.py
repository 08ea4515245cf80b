"""Registries: names taken once, unknown names, and packages that add names unasked."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweet_jax.system.names import describe_unknown
from sweet_jax.system.registry import Registry


def test_what_is_registered_is_found_in_order():
    registry: Registry[int] = Registry("number")
    assert registry.register("two", 2) == 2
    registry.register("one", 1)
    assert (registry.lookup("two"), registry.lookup("one")) == (2, 1)
    assert registry.names() == ("two", "one")
    assert "one" in registry
    assert "three" not in registry


def test_register_decorates():
    registry: Registry[Callable[[], int]] = Registry("number")

    @registry.register("one")
    def one() -> int:
        return 1

    assert one() == registry.lookup("one")() == 1


def test_a_decorator_is_refused_before_it_decorates():
    registry: Registry[Callable[[], int]] = Registry("number")
    registry.register("one", lambda: 1)
    with pytest.raises(ValueError, match="'one' is registered already"):
        registry.register("one")
    with pytest.raises(ValueError, match="'a-b': a name is"):
        registry.register("a-b")
    with pytest.raises(
        ValueError, match=r'comes first, as in register_number\("my_num'
    ):
        registry.register(lambda: 1)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_name_taken_twice_is_refused_with_a_way_out():
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    with pytest.raises(ValueError, match=r"number 'one' is registered already.*repl"):
        registry.register("one", 2)
    assert registry.lookup("one") == 1
    registry.register("one", 2, replace=True)
    assert registry.lookup("one") == 2


def test_our_own_names_cannot_be_replaced():
    registry: Registry[int] = Registry("number", builtin=["one"])
    registry.register("one", 1)
    for replace in (False, True):
        with pytest.raises(ValueError, match=r"choose another name$"):
            registry.register("one", 2, replace=replace)
    assert registry.lookup("one") == 1


def test_our_own_names_are_known_before_their_module_is_imported():
    registry: Registry[int] = Registry("number", builtin=["one", "two"])
    registry.check_name("two")
    assert registry.names() == ("one", "two")


@pytest.mark.parametrize(
    "name", ["", "A", "a-b", "1a", "a b", "a\n", "a" * 65, None, 3]
)
def test_malformed_names_are_refused(name: object):
    registry: Registry[int] = Registry("number")
    with pytest.raises(ValueError, match="choose such a name"):
        registry.register(name, 1)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_an_unknown_name_is_one_line_with_the_nearest():
    registry: Registry[int] = Registry("number")
    registry.register("seven", 7)
    registry.register("eight", 8)
    with pytest.raises(
        ValueError, match=r"^number='sevne': allowed are seven, eight; did you mean se"
    ):
        registry.lookup("sevne")


def test_many_names_are_cut_short():
    line = describe_unknown("number", "x", (f"n{i}" for i in range(100)))
    assert line.endswith("n29 and 70 others")


def test_a_value_that_the_registry_refuses_is_not_kept():
    def check(name: str, value: int) -> None:
        if value < 0:
            raise ValueError(f"{name} is negative")

    registry: Registry[int] = Registry("number", builtin=["mine"], check=check)
    with pytest.raises(ValueError, match="one is negative"):
        registry.register("one", -1)
    assert "one" not in registry
    registry.register("mine", -1)  # ours are tested, not checked at each start


def _install(site: Path, package: str, entries: str, code: str) -> None:
    """Writes an installed package, as pip leaves it, with entry points."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\n")
    (info / "entry_points.txt").write_text(entries)
    (site / f"{package}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_packages_add_names_through_entry_points_loaded_when_asked(site: Path):
    entries = "[sweet_jax.test_a]\none = adds_one:ONE\nbad = adds_one:MISSING\n"
    _install(site, "adds_one", entries, "ONE = 1\n")
    registry: Registry[int] = Registry("number", "sweet_jax.test_a", builtin=["two"])
    registry.register("two", 2)
    assert registry.names() == ("two", "one", "bad")
    assert "adds_one" not in sys.modules
    assert registry.lookup("one") == 1
    with pytest.raises(
        ValueError, match=r"'bad' cannot be loaded from the package add"
    ):
        registry.lookup("bad")


def test_an_entry_point_may_register_itself_on_import(site: Path):
    code = "import sys\nsys.registry_b.register('one', 1)\n"
    _install(site, "registers", "[sweet_jax.test_b]\none = registers\n", code)
    registry: Registry[int] = Registry("number", "sweet_jax.test_b")
    sys.registry_b = registry  # pyright: ignore
    try:
        assert registry.lookup("one") == 1
    finally:
        del sys.registry_b  # pyright: ignore


def test_two_packages_with_one_name_are_refused(site: Path):
    for package in ("first", "second"):
        entries = f"[sweet_jax.test_c]\none = {package}:ONE\n"
        _install(site, package, entries, "ONE = 1\n")
    registry: Registry[int] = Registry("number", "sweet_jax.test_c")
    with pytest.raises(ValueError, match=r"of the package (first|second) is taken by"):
        registry.names()


def test_a_package_cannot_take_our_own_name(site: Path):
    _install(site, "thief", "[sweet_jax.test_d]\none = thief:ONE\n", "ONE = 1\n")
    registry: Registry[int] = Registry("number", "sweet_jax.test_d", builtin=["one"])
    registry.register("one", 7)
    assert registry.lookup("one") == 7
    with pytest.raises(ValueError, match="taken by sweet_jax itself"):
        registry.names()


def test_importing_registries_reads_no_metadata():
    code = (
        "import sys; from sweet_jax.system.registry import Registry;"
        " r = Registry('number', 'sweet_jax.x', builtin=['one']); r.register('one', 1);"
        " r.lookup('one'); assert 'importlib.metadata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
