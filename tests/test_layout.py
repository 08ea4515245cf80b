"""The layout: no private name crosses a file, every module with logic has its tests.

That imports go downwards is import-linter's to say (pyproject.toml).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sweet_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
# A module has logic if its functions have this many statements together.
LOGIC = 20
# Tests of what several modules of a room do together.
TESTS_OF_SEVERAL = {
    "tests/data/test_family_tokenizers.py",
    "tests/huggingface/test_encoder_folder.py",
    "tests/models/test_reference_bert.py",
    "tests/models/test_reference_constant_attention.py",
    "tests/models/test_reference_encoders.py",
    "tests/report/test_report.py",
    "tests/runs/test_damage.py",
    "tests/runs/test_interruptions.py",
    "tests/serving/test_predict_memory.py",
    "tests/training/test_step.py",
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def count_statements(tree: ast.Module) -> int:
    """Returns the number of statements in functions, docstrings aside."""
    counted = {
        statement
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for part in function.body
        for statement in ast.walk(part)
        if isinstance(statement, ast.stmt)
        and not (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
        )
    }
    return len(counted)


def test_every_module_with_logic_has_its_tests():
    untested = set()
    for path in MODULES:
        inner = path.relative_to(PACKAGE)
        if path.name == "__init__.py":
            inner = inner.with_name(f"{path.parent.name}.py")
        test = ROOT / "tests" / inner.with_name(f"test_{inner.stem.strip('_')}.py")
        if not test.is_file() and count_statements(parse(path)) >= LOGIC:
            untested.add(path.relative_to(PACKAGE).as_posix())
    assert untested == set()


def test_every_test_file_has_its_module():
    """A module that is renamed takes its tests along."""
    missing = {
        path.relative_to(ROOT).as_posix()
        for room in PACKAGE.iterdir()
        for path in (ROOT / "tests" / room.name).glob("test_*.py")
        if not (room / f"{path.stem.removeprefix('test_')}.py").is_file()
    }
    assert missing - TESTS_OF_SEVERAL == set()


def find_private(tree: ast.Module) -> Iterator[str]:
    """Yields the private names of other modules of ours that a module uses."""
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "sweet_jax"
        ):
            for name in node.names:
                imported[name.asname or name.name] = node.module
                if name.name.startswith("_"):
                    yield f"{node.module}.{name.name}"
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and isinstance(node.value, ast.Name)
            and node.value.id in imported
        ):
            yield f"{imported[node.value.id]}.{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_uses_private_names_of_another(path: Path):
    assert list(find_private(parse(path))) == []


def test_private_names_are_found_however_they_are_written():
    code = (
        "from sweet_jax.a import b, _c\n"
        "from sweet_jax.a import Thing as T\n"
        "from other import d\n"
        "b._x(); T._y; d._z; self._w; b.__name__"
    )
    assert set(find_private(ast.parse(code))) == {
        "sweet_jax.a._c",
        "sweet_jax.a.b._x",
        "sweet_jax.a.T._y",
    }


def test_statements_are_counted_once():
    code = '''
def outer(x):
    """Docstring."""
    def inner():
        return 1
    if x:
        y = 2
    return inner
class C:
    z = 1
    def method(self):
        """Docstring."""
'''
    assert count_statements(ast.parse(code)) == 5
