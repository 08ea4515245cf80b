"""Flags: the forms people type, help with examples first, one line for the rest."""

import dataclasses
import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_command

from sweet_jax.__main__ import COMMANDS
from sweet_jax.commands import flags
from sweet_jax.commands.flags import Parser, make_parser, read_fields


@pytest.fixture
def parser() -> Parser:
    parser = Parser("sweet-jax x", "Does x.")
    parser.add_config("a config")
    parser.add_switch("dry_run", "only say")
    parser.add_argument("--workdir", default="")
    parser.add_argument("--names", type=flags.read_names, default=())
    parser.add_argument("--rows", type=flags.read_count(1, 9), default=1)
    return parser


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["--dry_run"], True),
        (["--dry_run=true"], True),
        (["--dry_run=1"], True),
        (["--dry_run=False"], False),
        (["--nodry_run"], False),
        (["-dry_run"], True),
        (["--dry-run"], True),
        (["--no-dry-run"], False),
        (["--dry_run", "--workdir", "x"], True),
    ],
)
def test_a_switch_has_the_forms_of_absl(parser, arguments, expected):
    assert parser.read(arguments).dry_run is expected


def test_a_switch_takes_no_argument_that_follows():
    parser = Parser("sweet-jax x", "Does x.")
    parser.add_switch("dry_run", "only say")
    parser.add_argument("folder")
    assert parser.read(["--dry_run", "x"]).folder == "x"


def test_flags_come_from_files_too(parser, tmp_path):
    (tmp_path / "flags").write_text("--workdir=w\n# not this\n--config.seed=3\n")
    options = parser.read(["--config=sweet", f"--flagfile={tmp_path / 'flags'}"])
    assert options.workdir == "w"
    assert options.config_flags == ["--config=sweet", "--config.seed=3"]
    (tmp_path / "binary").write_bytes(b"\xff")
    for name in ("absent", "binary"):
        with pytest.raises(ValueError, match=r"^--flagfile: .*: see --help$"):
            parser.read([f"--flagfile={tmp_path / name}"])


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked.

    Attributes:
        source: where from, on more
            than one line.
        most: 10 % at most.
        names: of columns.
        strict: stop.
        out: where to.
        rate: how fast.
    """

    source: str = "-"
    most: int = 4
    names: tuple[str, ...] = ()
    strict: bool = False
    out: Path | None = None
    rate: float | None = None


def test_the_fields_of_options_are_flags_with_their_help():
    parser = Parser("sweet-jax x", "Does x.")
    how = {"rename": {"source": "input"}}
    parser.add_fields(Options, **how)
    assert Options(**read_fields(parser.read([]), Options, **how)) == Options()
    arguments = ["--input=a", "--most", "5", "--names=a,b", "--strict", "--out=o"]
    read = parser.read([*arguments, "--rate=0.5"])
    given = Options(**read_fields(read, Options, **how))
    assert given == Options("a", 5, ("a", "b"), True, Path("o"), 0.5)
    page = " ".join(parser.format_help().split())
    assert "--input=TEXT where from, on more than one line (default: -)" in page
    assert "--most=N 10 % at most (default: 4)" in page
    assert "--strict stop" in page
    with pytest.raises(ValueError, match="--most: invalid int value: 'x': see --help"):
        parser.read(["--most=x"])


def test_flags_of_the_config_are_left_as_they_are(parser):
    arguments = ["--config", "sweet", "--workdir", "w", "--config.seed", "-1"]
    arguments += ["--config.a.b=1 2", "--noconfig.faithful_release", "--dry_run"]
    arguments += ["--config.faithful_release", "--names=a,b"]
    options = parser.read(arguments)
    assert options.config_flags == [
        *("--config", "sweet", "--config.seed", "-1", "--config.a.b=1 2"),
        *("--noconfig.faithful_release", "--config.faithful_release"),
    ]
    assert (options.workdir, options.dry_run) == ("w", True)
    assert options.names == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdr=x"], "flag='--workdr': allowed are .*did you mean --workdir"),
        (["--work=x"], "flag='--work': allowed are"),  # No flag is abbreviated.
        (["extra"], "unexpected argument 'extra': see --help"),
        (["--dry_run=perhaps"], "--dry_run: 'perhaps': allowed are true and false"),
        (["--rows=10"], "--rows: '10': allowed are whole numbers from 1 to 9"),
        (["--rows=1e3"], "--rows: '1e3': allowed are whole numbers"),
        (["--workdir"], "--workdir: expected one argument: see --help"),
        (["--\x1b[31m=1"], r"flag='--\\x1b\[31m'|flag='--\\\\x1b"),
    ],
)
def test_a_wrong_flag_is_one_line(parser, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        parser.read(arguments)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_no_failure_and_begins_with_examples(name, capsys):
    assert run_command(name, "--no_such_flag", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("    sweet-jax ")
    assert any(f"sweet-jax {name} " in line for line in lines[2:6])
    assert "options:" in lines
    module = importlib.import_module(f"sweet_jax.commands.{name}")
    parser = make_parser("x", module)
    assert all(a.help for a in parser._actions if a.option_strings), "no help"


def test_help_of_no_command_imports_jax():
    code = """
from sweet_jax.__main__ import COMMANDS, run
import sys
for name in COMMANDS:
    try:
        run([name, "--help"])
    except SystemExit as stop:
        assert not stop.code
    heavy = {"jax", "transformers", "scipy", "pandas", "matplotlib"}
    assert not heavy & sys.modules.keys(), (name, heavy & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_log_record_cannot_control_the_terminal():
    formatter = flags._Formatter("%(message)s")
    record = logging.makeLogRecord({"msg": "label %s", "args": ("\x1b[2J\nx",)})
    assert formatter.format(record) == "label \\x1b[2J\\nx"
