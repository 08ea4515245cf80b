"""What commands do with their process: streams, errors as one line, exit status."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.system import process


def test_names_cannot_control_the_terminal(capsys):
    process.say("one\x1b[31m\ntwo\u202e")
    process.complain("bad name \x1b]0;title\x07 of\na file")
    captured = capsys.readouterr()
    assert captured.out == "one\\x1b[31m\ntwo\\u202e\n"
    assert captured.err == "bad name \\x1b]0;title\\x07 of a file\n"


def test_an_error_line_has_a_bounded_length(capsys):
    process.complain("error: begin " + "x" * 100_000 + " end")
    line = capsys.readouterr().err
    assert line.startswith("error: begin x")
    assert line.endswith("x end\n")
    assert len(line) < 2100


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOTDIR])
def test_an_error_of_the_disk_names_the_file_and_what_to_do(number, capsys):
    def work() -> int:
        raise OSError(number, os.strerror(number), "/some/file")

    assert process.guard(work) == 2
    start = f"error: /some/file: {os.strerror(number)}: "
    line = capsys.readouterr().err
    assert line.startswith(start)
    assert len(line) > len(start) + 5


def test_only_our_own_errors_are_the_users(capsys):
    def ask_for_nothing() -> int:
        from_config_dict({"train": {"batch_size": 0}})
        return 0

    def misuse_a_library() -> int:
        json.loads("{")
        return 0

    assert process.guard(ask_for_nothing) == 2
    assert capsys.readouterr().err.startswith("error: train.batch_size=0")
    with pytest.raises(json.JSONDecodeError):
        process.guard(misuse_a_library)


def test_package_opens_text_files_in_utf_8():
    """Ruff's rule is a preview, so it is asked for here."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["ruff", "check", "--preview", "--select", "PLW1514", "sweet_jax"],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout
