"""What commands do with their process: streams, errors as one line, exit status."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweet_jax.settings.resolve import from_config_dict
from sweet_jax.system import process

ANSWER = "def work():\n    process.say('the answer')"


def run(
    work: str, redirection: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command whose work is given as text, with the shell's redirections."""
    code = f"import sys\nfrom sweet_jax import process\n{work}\nprocess.run(work)"
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code],
        capture_output=True,
        timeout=30,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "it is closed"), (">/dev/full", "free space there")],
)
def test_an_answer_that_cannot_be_printed_is_an_error(redirection, reason):
    done = run(ANSWER, redirection)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: standard output: ")
    assert reason.encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_closed_pipe_ends_quietly():
    endless = "def work():\n    while True: process.say('y' * 1000)"
    done = run(endless, "| head -c 10; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"y" * 10, b"")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_nobody_needs_standard_error(redirection):
    done = run(
        "def work():\n    process.complain('hm'); process.say('ok')", redirection
    )
    assert (done.returncode, done.stdout) == (0, b"ok\n")
    assert run("def work():\n    open('/nowhere')", redirection).returncode == 2


def test_a_closed_input_is_an_error_only_where_it_is_read():
    assert run(ANSWER, "<&-").stdout == b"the answer\n"
    done = run("def work():\n    sys.stdin.read()", "<&-")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")


def test_files_never_take_the_place_of_a_closed_stream(tmp_path):
    work = f"""
def work():
    file = open({str(tmp_path / "file")!r}, "w")
    assert file.fileno() > 2
    file.write("content")
    file.close()
"""
    assert run(work, "<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "file").read_text() == "content"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_what_a_terminal_lacks_is_escaped_and_stays_json(environment):
    text = "\u00e9 \u80af \U0001f600"
    work = f"def work():\n    print({json.dumps(text, ensure_ascii=False)!a})"
    done = run(work, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode("ascii")) == text


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


def test_a_wrong_option_is_one_line(capsys):
    def work() -> int:
        process.Parser(prog="x").parse_args(["--nonsense"])
        return 0

    assert process.guard(work) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: unrecognized arguments: --nonsense: see --help"
    ]


@pytest.mark.parametrize("name", ["report", "convert", "study"])
def test_help_is_no_failure(name, capsys):
    import importlib

    main = importlib.import_module(f"sweet_jax.commands.{name}").main
    assert main(["--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("usage: ")
    assert captured.err == ""


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
