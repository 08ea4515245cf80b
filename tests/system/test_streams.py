"""Streams that are closed, full, or of a terminal with few letters."""

import json
import os
import subprocess
import sys

import pytest

ANSWER = "def work():\n    process.say('the answer')"


def run(
    work: str, redirection: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command whose work is given as text, with the shell's redirections."""
    code = (
        f"import sys\nfrom sweet_jax.system import process\n{work}\nprocess.run(work)"
    )
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
