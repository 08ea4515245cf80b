"""The main command killed, stopped and out of disk: the same command goes on."""

import functools
import json
import os
import re
import resource
import signal
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
    damaged = re.escape(f"{newest}/checksums.json") + ".* is passed over"
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
