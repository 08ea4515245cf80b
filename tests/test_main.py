"""The program: commands by name, help and version at once, one line for the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

import sweet_jax
from sweet_jax import __main__ as program
from sweet_jax import commands
from sweet_jax.__main__ import COMMANDS, run
from sweet_jax.system import process


def test_the_program_has_help_at_once_and_no_other_commands():
    code = (
        "import sys; from sweet_jax.__main__ import run; run(['--help']);"
        "print(sorted({'jax', 'absl', 'numpy', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_every_module_of_a_command_is_one():
    modules = {path.stem for path in Path(commands.__path__[0]).glob("*.py")}
    assert modules == {*COMMANDS, "study_cell", "flags", "__init__"}


@pytest.mark.parametrize("arguments", [[], ["-h"], ["help"], ["--help", "train"]])
def test_help_is_asked_for_in_many_ways(arguments, capsys):
    run(["--help"])
    page = capsys.readouterr().out
    assert run(arguments) is None
    assert capsys.readouterr().out == page
    for name, text in COMMANDS.items():
        assert f"{name} " in page
        assert text in page
    assert page.splitlines()[2].startswith("    sweet-jax train ")


def test_processes_of_a_study_run_a_command_that_no_page_lists(capsys):
    with pytest.raises(SystemExit) as stop:
        run(["study_cell", "--help"])
    assert not stop.value.code
    assert "Internal command: runs one cell" in capsys.readouterr().out
    run([])
    assert "study_cell" not in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert run(["--version"]) is None
    assert capsys.readouterr().out == f"sweet_jax {sweet_jax.__version__}\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trian", "; did you mean train?"),
        ("Predict", "; did you mean predict?"),
        ("study_cells", "; did you mean study?"),
        ("flags", ""),
        ("--config=sweet", ""),
    ],
)
def test_a_wrong_name_lists_the_commands(name, hint):
    with pytest.raises(ValueError, match=r"^command=") as error:
        run([name, "--help"])
    assert str(error.value) == (
        f"command={name!r}: allowed are {', '.join(COMMANDS)}{hint}"
    )


def test_a_command_gets_its_flags_and_gives_its_status(monkeypatch):
    seen = []
    monkeypatch.setattr("sweet_jax.commands.flags.start_log", seen.append)
    monkeypatch.setattr(
        "sweet_jax.commands.convert.run", lambda options: seen.append(options) or 7
    )
    assert run(["convert", "--check", "x", "--verbosity=-1"]) == 7
    verbosity, options = seen
    assert (verbosity, options.check) == (-1, Path("x"))


def test_the_process_runs_its_own_arguments(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sweet-jax", "--version"])
    monkeypatch.setattr(process, "run", lambda work: work())
    program.main()
    assert capsys.readouterr().out.startswith("sweet_jax ")
