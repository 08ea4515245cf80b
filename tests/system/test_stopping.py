"""Signals end a command within seconds: one line, status 75, and things cleaned up."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sweet_jax.system import stopping

_PRELUDE = """
import ctypes, os, signal, sys, time
from sweet_jax.system import process, stopping
stopping._UNWIND_SECONDS, stopping._HELD_SECONDS = 0.5, 5.0
def ready():
    os.write(1, b"ready\\n")
"""
LINE = stopping.MESSAGE + "\n"


def start(
    work: str, prefix: tuple[str, ...] = (), **options: object
) -> subprocess.Popen[str]:
    """Starts `process.run(work)`, where `work` is a function in Python's text."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", f"{_PRELUDE}\n{work}\nprocess.run(work)"],
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        **options,  # type: ignore[arg-type]
    )


def stop(
    process: subprocess.Popen[str], *signals: signal.Signals, pause: float = 0
) -> tuple[int, str, str, float]:
    """Sends signals once it is ready; returns status, output, errors, seconds."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    begin = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(pause)
    output, errors = process.communicate(timeout=20)
    return process.returncode, output, errors, time.monotonic() - begin


SLEEP = "def work():\n    ready(); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_command_that_waits_ends_at_once(number):
    status, output, errors, seconds = stop(start(SLEEP), number)
    assert (status, output, errors) == (75, "", LINE)
    assert seconds < 2


STUBBORN = {
    # ctypes lets go of Python's lock, as XLA does while it compiles.
    "in C": "def work():\n    ready(); ctypes.CDLL(None).sleep(60)",
    "swallowed": """
def work():
    ready()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            print("Traceback of a library", file=sys.stderr)
""",
    "in a destructor": """
class Slow:
    def __del__(self):
        ready(); time.sleep(60)
def work():
    Slow()
    time.sleep(60)
""",
    "turned into another error": """
def work():
    ready()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        raise RuntimeError("a library's")
""",
    "an error in cleaning up": """
def work():
    ready()
    try:
        time.sleep(60)
    finally:
        open("/nowhere/at/all")
""",
    "in a thread that does not end": """
import threading
def work():
    threading.Thread(target=lambda: time.sleep(60)).start()
    ready(); time.sleep(60)
""",
}


@pytest.mark.parametrize("case", STUBBORN)
def test_whatever_runs_the_process_ends_with_the_one_line(case):
    status, output, errors, seconds = stop(start(STUBBORN[case]), signal.SIGTERM)
    assert (status, output, errors) == (75, "", LINE)
    assert seconds < 3


def test_a_signal_while_modules_are_imported_prints_no_traceback():
    code = f"{_PRELUDE}\nprocess.prepare(); ready(); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert stop(process, signal.SIGINT)[:3] == (75, "", LINE)


@pytest.mark.parametrize("start", ["sweet_jax", "sweet_jax.main", "script"])
def test_python_starts_a_command_with_its_signals_caught(start, tmp_path):
    """No sooner is the package imported than a signal is answered in order."""
    script = tmp_path / "sweet-jax"  # As pip writes it.
    script.write_text(
        "import sys\nfrom sweet_jax.__main__ import main\nsys.exit(main())"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-X", "importtime"),
            *([str(script)] if start == "script" else ["-m", start]),
            *([] if start == "sweet_jax.main" else ["convert", "--check=x"]),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SWEET_JAX_CACHE": str(tmp_path), "PYTHONPATH": os.getcwd()},
    )
    with process:
        assert process.stderr is not None
        # Imports within others are indented.
        while not process.stderr.readline().endswith(" sweet_jax\n"):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        lines = process.stderr.read().splitlines()
    assert process.returncode == 75
    assert [line for line in lines if not line.startswith("import time")] == [
        stopping.MESSAGE
    ]


def test_cleaning_up_is_done_and_what_was_printed_arrives(tmp_path):
    work = f"""
def work():
    path = {str(tmp_path / "temporary")!r}
    open(path, "w").close()
    try:
        print("half a line", end="")
        ready()
        time.sleep(60)
    finally:
        os.unlink(path)
"""
    status, output, errors, _ = stop(start(work), signal.SIGTERM)
    assert (status, output, errors) == (75, "half a line", LINE)
    assert not (tmp_path / "temporary").exists()


HOLD = """
def work():
    with stopping.hold() as is_asked:
        ready()
        for _ in range(600):
            time.sleep(0.01)
            if is_asked():
                time.sleep(STEP)
                raise stopping.Stopped("stopped after step 7")
"""


def test_a_held_stop_comes_after_the_step():
    work = HOLD.replace("STEP", "1.5")
    status, _, errors, seconds = stop(start(work), signal.SIGTERM)
    assert (status, errors) == (75, "stopped after step 7\n")
    assert seconds > 1.4


def test_a_step_without_end_is_not_waited_for():
    work = "stopping._HELD_SECONDS = 0.5\n" + HOLD.replace("STEP", "60")
    status, _, errors, seconds = stop(start(work), signal.SIGTERM)
    assert (status, errors) == (75, LINE)
    assert seconds < 3


def test_a_second_signal_ends_at_once_but_not_one_sent_twice():
    work = HOLD.replace("STEP", "1.5")
    twice = stop(start(work), signal.SIGTERM, signal.SIGTERM)
    assert twice[2] == "stopped after step 7\n"
    impatient = stop(start(work), signal.SIGINT, signal.SIGINT, pause=0.7)
    assert impatient[:3] == (75, "", LINE)
    assert impatient[3] < 1.9


def test_nohup_is_respected_and_a_background_jobs_sigint_is_not():
    # What the shell does for nohup and for a job in the background.
    process = start(SLEEP, prefix=("sh", "-c", """trap '' HUP INT; exec "$@" """, "sh"))
    begin = time.monotonic()
    status, _, errors, _ = stop(process, signal.SIGHUP, signal.SIGINT, pause=1)
    assert (status, errors) == (75, LINE)
    assert time.monotonic() - begin > 1


def test_a_forked_child_has_the_default_signals():
    work = """
def work():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    time.sleep(1)
"""
    process = start(work)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


def test_a_signal_after_the_work_only_hurries_the_exit():
    work = """
import atexit
def work():
    atexit.register(lambda: (ready(), time.sleep(60)))
    return 1
"""
    status, _, errors, seconds = stop(start(work), signal.SIGTERM)
    assert (status, errors) == (1, "")
    assert seconds < 2


def test_what_is_printed_after_the_work_arrives():
    work = """
import atexit
def work():
    atexit.register(print, "at exit")
"""
    output, errors = start(work).communicate(timeout=20)
    assert (output, errors) == ("at exit\n", "")


def hold_while(number: signal.Signals) -> None:
    """Gets a signal in the middle of a step."""
    with stopping.hold() as is_asked:
        assert not is_asked()
        os.kill(os.getpid(), number)
        assert is_asked()


def test_outside_of_commands_only_sigterm_is_held():
    previous = signal.getsignal(signal.SIGTERM)
    with pytest.raises(stopping.Stopped):
        hold_while(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is previous
    with stopping.hold() as is_asked:
        assert not is_asked()
    with pytest.raises(KeyboardInterrupt) as stopped:
        hold_while(signal.SIGINT)
    assert not isinstance(stopped.value, stopping.Stopped)
