"""The predict command: it stops, goes on, and answers what arrives meanwhile."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.tiny_model import write_lines

CHUNK = 32


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    """Four chunks of lines."""
    return write_lines(tmp_path_factory.mktemp("reviews") / "reviews.txt", 4 * CHUNK)


@pytest.fixture
def arguments(tiny_model, reviews) -> list[str]:
    return [
        f"--model={tiny_model}",
        f"--input={reviews}",
        "--threshold=0.8",
        "--batch_size=8",
        f"--chunk_rows={CHUNK}",
    ]


def test_a_wrong_flag_is_exit_status_2(command, tmp_path, arguments, tiny_model):
    for flags, message in (
        (["--batch_size=0"], "--batch_size: '0': allowed are whole"),
        ([f"--model={tmp_path}"], "is not a model folder"),
    ):
        status, last = command.run([*arguments, *flags], "predict")
        assert (status, message in last) == (2, True), last


def read_status(output: Path) -> dict:
    path = output.with_name(f"{output.name}.job.json")
    return json.loads(path.read_text()) if path.exists() else {"rows": 0}


@pytest.mark.slow
def test_kill_9_at_random_moments_leaves_the_output_of_one_run(
    command, tiny_model, tmp_path
):
    source = write_lines(tmp_path / "in.txt", 6000)
    with source.open("a") as file:
        file.write("\nthe last one\n\n")
    run = [f"--model={tiny_model}", f"--input={source}", "--threshold=0.8"]
    run += ["--batch_size=8", "--chunk_rows=100"]
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    start = time.monotonic()
    assert command.run([*run, f"--output={whole}"], "predict")[0] == 0
    seconds = time.monotonic() - start
    rng = random.Random(0)
    moments = []
    for _ in range(10):
        running = command.start([*run, f"--output={parts}"], "predict")
        before = read_status(parts)["rows"]
        # From somewhere in the start to a few chunks on.
        if rng.random() < 0.7:
            running.wait_until(
                lambda before=before: read_status(parts)["rows"] > before
            )
        time.sleep(rng.random() * seconds / 20)
        os.kill(running.pid, signal.SIGKILL)
        assert running.finish()[0] == -signal.SIGKILL
        moments.append(read_status(parts)["rows"])
    assert len(set(moments)) > 4, moments
    assert moments[-1] < 6000
    status, last = command.run([*run, f"--output={parts}"], "predict")
    assert status == 0, last
    assert parts.read_bytes() == whole.read_bytes()
    names = [path.name.replace("parts", "whole") for path in tmp_path.glob("*parts*")]
    assert sorted(names) == sorted(path.name for path in tmp_path.glob("*whole*"))
    side = "jsonl.rejected.jsonl"
    assert parts.with_suffix(f".{side}").read_bytes() == (
        whole.with_suffix(f".{side}").read_bytes()
    )


@pytest.mark.slow
def test_stopped_it_says_how_to_go_on_and_does(command, arguments, tmp_path):
    output = tmp_path / "out.jsonl"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    run = [*arguments, "--input=-", "--format=text", f"--output={output}"]
    lines = [b"a good film\n"] * (CHUNK + 5)
    # What is sent is a chunk and a half: it waits for more, and is stopped there.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pipe.open("wb", buffering=0) as sink:
        running = command.start(run, "predict", str(pipe))
        sink.write(b"".join(lines))
        running.wait_until(lambda: read_status(output)["rows"] == CHUNK)
        os.kill(running.pid, signal.SIGTERM)
        status, last = running.finish()
    os.close(reader)
    assert status == 75, running.output.read_text()
    assert last == f"stopped after {CHUNK} rows: the same command goes on from there"
    source = tmp_path / "in.txt"
    source.write_bytes(b"".join(lines))
    status, last = command.run(run, "predict", str(source))
    assert status == 0, last
    rows = [json.loads(line)["line"] for line in output.read_text().splitlines()]
    assert rows == list(range(1, CHUNK + 6))


@pytest.mark.slow
def test_whoever_has_read_enough_may_leave(tiny_model, reviews):
    command = [
        sys.executable,
        "-m",
        "sweet_jax",
        "predict",
        f"--model={tiny_model}",
    ]
    with reviews.open() as source:
        process = subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate()
    assert (process.returncode, b"error" in said.lower()) == (0, False), said


def test_standard_input_is_answered_while_it_arrives(command, arguments, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pipe.open("wb", buffering=0) as sink:
        running = command.start([*arguments, "--input=-"], "predict", str(pipe))
        for count, line in enumerate((b"good film\n", b"\n", b"a bad plot\n"), 1):
            sink.write(line)
            wanted = ('"line": 1,', "line 2 is empty", '"line": 3,')[count - 1]
            running.wait_until(
                lambda wanted=wanted: wanted in running.output.read_text()
            )
    os.close(reader)
    status, _ = running.finish()
    text = running.output.read_text()
    assert status == 0, text
    assert "2 rows answered\n1 rows could not be used" in text
