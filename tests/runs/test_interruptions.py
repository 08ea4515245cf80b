"""The main command killed, stopped and out of disk: the same command goes on."""

import functools
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from main_command import Running

from sweet_jax.arrays import LogitBank

SAVE_EVERY = 3


@pytest.fixture(scope="module")
def arguments(tiny_encoder, tiny_task) -> list[str]:
    """A run of 12 steps with a checkpoint every 3."""
    return [
        f"--config=configs/sweet.py:task=file,encoder={tiny_encoder}",
        f"--config.data.train_file={tiny_task / 'train.jsonl'}",
        f"--config.data.test_file={tiny_task / 'test.jsonl'}",
        "--config.data.max_train_examples=48",
        "--config.data.calibration_examples=24",
        "--config.data.max_length=16",
        "--config.data.buckets=(16,)",
        "--config.exits.layers=(0, 1)",
        "--config.train.batch_size=8",
        "--config.train.num_epochs=2",
        f"--config.train.checkpoint_every_steps={SAVE_EVERY}",
    ]


@pytest.fixture(scope="module")
def whole(command, arguments, tmp_path_factory) -> Path:
    """The work directory of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    status, last = command.run([*arguments, f"--workdir={workdir}"])
    assert status == 0, last
    return workdir


def read_steps(workdir: Path) -> list[tuple[int, list[float]]]:
    """Returns (step, losses) of every whole line of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    rows = [json.loads(line) for line in lines]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def list_checkpoints(workdir: Path) -> list[int]:
    """Returns the steps that have a finished checkpoint."""
    folder = workdir / "checkpoints" / "model" / "steps"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal())


def assert_same_run(workdir: Path, whole: Path) -> None:
    """Every loss and every parameter, bit for bit."""
    assert read_steps(workdir) == read_steps(whole)
    one, two = (
        safetensors.numpy.load_file(path / "model" / "params.safetensors")
        for path in (workdir, whole)
    )
    assert one.keys() == two.keys()
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, two[name], err_msg=name)


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "the work directory is made": lambda workdir: workdir.exists(),
    "two steps are done": lambda workdir: len(read_steps(workdir)) >= 2,
    "a checkpoint is written": lambda workdir: list_checkpoints(workdir) != [],
    "eight steps are done": lambda workdir: len(read_steps(workdir)) >= 8,
    "a bank is written": lambda workdir: (workdir / "logits_calibration.npz").exists(),
    "the model is written": lambda workdir: (workdir / "model").exists(),
    "the results are written": lambda workdir: (workdir / "results.json").exists(),
}


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(
            ("eight steps are done", "the results are written"),
            marks=pytest.mark.slow,
        ),
        pytest.param(tuple(MOMENTS), marks=pytest.mark.slow),
    ],
    ids=["twice", "seven times"],
)
def test_kill_9_at_any_moment_loses_nothing(
    command, arguments, whole, tmp_path, moments
):
    workdir = tmp_path / "run"
    run = [*arguments, f"--workdir={workdir}"]
    for moment in moments:
        running = command.start(run)
        running.wait_until(functools.partial(MOMENTS[moment], workdir))
        os.kill(running.pid, signal.SIGKILL)
        assert running.finish()[0] == -signal.SIGKILL
    status, last = command.run(run)
    assert status == 0, last
    assert_same_run(workdir, whole)
    assert (workdir / "report.html").exists()
    one, two = (
        LogitBank.load(path / "logits_test.npz").logits for path in (workdir, whole)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_sigterm_saves_and_exits_75_and_a_damaged_checkpoint_is_passed_over(
    command, arguments, whole, tmp_path
):
    workdir = tmp_path / "run"
    run = [*arguments, f"--workdir={workdir}"]
    running = command.start(run)
    running.wait_until(lambda: len(read_steps(workdir)) >= 4)
    os.kill(running.pid, signal.SIGTERM)
    status, last = running.finish()
    assert status == 75, last
    step = re.fullmatch(
        r"stopped after step (\d+); the same command goes on from there", last
    )
    assert step is not None, last
    newest = int(step[1])
    *_, older, last_saved = list_checkpoints(workdir)
    assert last_saved == newest
    for file in (workdir / "checkpoints" / "model" / "steps" / str(newest)).rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "mem')  # the line that was being written
    running = command.start(run)
    status, last = running.finish()
    assert status == 0, last
    printed = running.output.read_text()
    damaged = re.escape(f"{newest}/checksums.json") + ".* is skipped"
    assert re.search(damaged, printed), printed
    # Not from the beginning, which would end in the same run.
    assert f"goes on after step {older}" in printed
    assert_same_run(workdir, whole)


@pytest.mark.slow
def test_other_training_settings_are_refused_with_what_differs(
    command, arguments, whole
):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    run = [*arguments, "--config.optim.clip_norm=0.5", f"--workdir={whole}"]
    status, last = command.run(run)
    assert status == 2
    assert "optim.clip_norm was 1.0, now 0.5" in last
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


STOPPED = "stopped; the same command goes on from there"


def stop_after(
    command: list[str], seconds: float, number: signal.Signals, env: dict[str, str]
) -> bool:
    """Starts a command and sends it a signal; whether it was still at work.

    Its line, its status and its haste are checked.
    """
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        time.sleep(seconds)
        # As ctrl-C does, to all processes of the terminal.
        start = time.monotonic()
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    lines = [x for x in errors.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", x)]
    # A stop may come when the new folder is there already.
    is_done = process.returncode == 2 and "name another folder" in errors
    assert process.returncode in (0, 75) or is_done, (command, seconds, errors)
    assert time.monotonic() - start < 8, (command, seconds, errors)
    if process.returncode != 75:
        return False
    assert len(lines) == 1, (command, seconds, errors)
    assert re.fullmatch(
        r"stopped( after .*|); the same command goes on from there"
        r"|stopped after \d+ rows: the same command goes on from there",
        lines[0],
    ), (command, seconds, lines)
    return True


def make_commands(
    run: list[str], whole: Path, task: Path, out: Path
) -> dict[str, list[str]]:
    """Returns every command, ready to run."""
    study = [a.replace("configs/sweet.py", "configs/study.py") for a in run]
    return {
        "main": ["sweet_jax.main", *run, f"--workdir={out / 'run'}"],
        "dry run": ["sweet_jax.main", *run, "--dry_run"],
        "study": [
            "sweet_jax.main",
            *study,
            "--config.study.methods=sweet,early_exit",
            "--config.study.seeds=0,",
            "--config.evaluate.measure_costs=False",
            f"--workdir={out / 'study'}",
        ],
        "predict": [
            "sweet_jax",
            "predict",
            f"--model={whole / 'model'}",
            f"--input={task / 'test.jsonl'}",
            "--text_columns=sentence",
            f"--output={out / 'answers.jsonl'}",
            "--chunk_rows=5",
        ],
        "export": [
            "sweet_jax",
            "export",
            f"--model={whole / 'model'}",
            f"--out={out / 'exported'}",
        ],
        "evaluate": [
            "sweet_jax",
            "evaluate",
            f"--run={whole}",
            f"--data={task / 'test.jsonl'}",
            f"--output={out / 'evaluation'}",
        ],
        "report": ["sweet_jax", "report", str(whole)],
        "convert": [
            "sweet_jax",
            "convert",
            "--export",
            str(whole / "model"),
            str(out / "encoder"),
        ],
        "analysis": ["sweet_jax", "analyze", "conflict", f"--run={whole}"],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "main",
        "dry run",
        "study",
        "predict",
        "export",
        "evaluate",
        "report",
        "convert",
        "analysis",
    ],
)
def test_a_signal_at_any_moment_is_one_line_and_the_command_goes_on(
    arguments, whole, tiny_task, shared_cache, tmp_path, name
):
    env = os.environ | {
        "SWEET_JAX_CACHE": str(shared_cache),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.getcwd(),
    }
    run = tmp_path / "whole"  # `analysis` and `report` write into it.
    shutil.copytree(whole, run)
    command = make_commands(arguments, run, tiny_task, tmp_path)[name]
    numbers = itertools.cycle([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    seconds, stops = 0.3, 0
    while stop_after(command, seconds, next(numbers), env):
        stops += 1
        seconds = seconds * 1.5 + 0.2
    assert stops >= 2
    left = [path for path in tmp_path.rglob(".*.tmp") if ".lock" not in path.name]
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_study_stops_with_its_cell_and_starts_no_other(
    arguments, shared_cache, tmp_path, number
):
    env = os.environ | {"SWEET_JAX_CACHE": str(shared_cache), "HF_HUB_OFFLINE": "1"}
    study = [a.replace("configs/sweet.py", "configs/study.py") for a in arguments]
    study += ["--config.study.methods=sweet,early_exit", "--config.study.seeds=0,"]
    command = [sys.executable, "-m", "sweet_jax.main", *study]
    with subprocess.Popen(
        [*command, f"--workdir={tmp_path / 'study'}"],
        env=env | {"PYTHONPATH": os.getcwd()},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 60
        while not list(tmp_path.glob("study/logs/*.log")):  # The cell imports jax.
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert errors.endswith(f"to go\n{STOPPED}\n"), errors
    assert len(list(tmp_path.glob("study/logs/*.log"))) == 1
    assert not list(tmp_path.glob("study/cells/*/cell.json"))
    assert not list(tmp_path.glob("study/locks/*.json"))
    (log,) = tmp_path.glob("study/logs/*.log")
    assert log.read_text().endswith(f"{STOPPED}\n")


def fill_disk(running: Running) -> None:
    """Lets no file of the process grow past 16 KiB, as if the disk were full."""
    limit = 16 * 1024
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_previous_checkpoint_restores(
    command, arguments, whole, tmp_path
):
    workdir = tmp_path / "run"
    run = [*arguments, f"--workdir={workdir}"]
    running = command.start(run)
    running.wait_until(lambda: list_checkpoints(workdir) != [])
    fill_disk(running)
    status, last = running.finish()
    assert status == 2, last
    kept = list_checkpoints(workdir)[-1]
    assert last.startswith("error: could not save the checkpoint of step "), last
    assert f"the newest good one is step {kept}: free space" in last, last
    assert not (workdir / "results.json").exists()
    running = command.start(run)
    status, last = running.finish()
    assert status == 0, last
    assert f"goes on after step {kept}" in running.output.read_text()
    assert_same_run(workdir, whole)
