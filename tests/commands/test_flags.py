"""Flags: the forms people type, help with examples first, one line for the rest."""

import importlib
import logging
import subprocess
import sys

import pytest
from command_line import run_command

from sweet_jax.__main__ import COMMANDS
from sweet_jax.commands import flags
from sweet_jax.commands.flags import Parser, make_parser


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
    ],
)
def test_a_switch_has_the_forms_of_absl(parser, arguments, expected):
    assert parser.read(arguments).dry_run is expected


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
    assert run_command(name, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("    sweet-jax ")
    assert any(f"sweet-jax {name} " in line for line in lines[2:6])
    assert "options:" in lines
    module = importlib.import_module(f"sweet_jax.commands.{name}")
    parser = make_parser("x", module)
    assert all(a.help for a in parser._actions if a.option_strings), "no help"


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


def test_a_log_record_cannot_control_the_terminal():
    formatter = flags._Formatter("%(message)s")
    record = logging.makeLogRecord({"msg": "label %s", "args": ("\x1b[2J\nx",)})
    assert formatter.format(record) == "label \\x1b[2J\\nx"
