"""Commands killed and stopped at random moments, until they finish all the same."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
from safetensors.numpy import load_file

from benchmarks.tiny_model import write_lines
from campaign.seeds import Seeds
from sweet_jax.settings.registries import BUILTIN_METHODS

ROOT = Path(__file__).parents[2]
STOPPED = 75
# A stop that takes longer has failed.
MOST_SECONDS = 10.0
# Python itself starts in less.
_BIRTH_SECONDS = 0.5
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Command:
    """A command under attack.

    Attributes:
        name: in tables.
        module: of `python -m`, and the command.
        make_arguments: folder to write in -> its flags.
        describe: that folder -> all that the command leaves which must not differ.
    """

    name: str
    module: str
    make_arguments: Callable[[Path], list[str]]
    describe: Callable[[Path], str]


@dataclasses.dataclass(frozen=True)
class Kill:
    """One signal and what came of it.

    Attributes:
        signal: its name.
        moment: seconds after the start.
        outcome: good are `killed`, `stopped`, `finished` and `unborn` (before any code
            of ours had run); else what went wrong.
        seconds: from the signal to the end.
    """

    signal: str
    moment: float
    outcome: str
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether the command ended as it should."""
        return self.outcome in ("killed", "stopped", "finished", "unborn")


def kill_again_and_again(
    command: Command, scratch: Path, count: int, seed: str
) -> Iterator[Kill]:
    """Yields what came of each start until `count` signals have met a running process.

    The same command is started again after each signal. Where it has finished, its
    result is compared with that of an undisturbed run, and another one begins.
    """
    rng = Random(f"{command.name} {seed}")
    whole = scratch / "whole"
    # The first one compiles: moments are drawn from what the others take.
    for folder in (scratch / "first", whole):
        folder.mkdir(parents=True)
        start = time.perf_counter()
        status = _start(command, folder, scratch / f"{folder.name}.log").wait()
        if status != 0:
            raise RuntimeError(f"{command.name} ends with {status}: see {scratch}")
        length = time.perf_counter() - start
    wanted = command.describe(whole)
    done, starts, run = 0, 0, 0
    while done < count:
        folder = scratch / f"run_{run}"
        folder.mkdir()
        finished = False
        while not finished and done < count:
            log = scratch / f"run_{run}_{starts}.log"
            kill = _kill_once(command, folder, log, rng, length)
            finished = kill.outcome == "finished"
            starts += 1
            done += not finished
            if starts == 10 * count:
                done = count
            yield kill
        if not finished:
            status = _start(command, folder, scratch / f"run_{run}_end.log").wait()
            if status != 0:
                yield Kill(
                    "none", 0.0, f"the same command then ends with {status}", 0.0
                )
                return
        if (found := command.describe(folder)) != wanted:
            yield Kill("none", 0.0, f"{folder.name} differs: {found} {wanted}", 0.0)
        run += 1


def list_commands(seeds: Seeds) -> list[Command]:
    """Returns the commands under attack."""
    lines = seeds.root / "lines.txt"
    if not lines.exists():
        write_lines(lines, 20_000)
    test = seeds.task / "test.jsonl"
    return [
        *(_make_main(method, seeds) for method in BUILTIN_METHODS),
        Command("study", "sweet_jax.main", lambda f: _study(f, seeds), _describe_study),
        Command(
            "predict",
            "sweet_jax predict",
            lambda folder: [
                f"--model={seeds.model}",
                f"--input={lines}",
                f"--output={folder / 'answers.jsonl'}",
                "--threshold=0.6",
                "--chunk_rows=1024",
            ],
            lambda folder: hash_bytes((folder / "answers.jsonl").read_bytes()),
        ),
        Command(
            "export",
            "sweet_jax export",
            lambda folder: [f"--model={seeds.model}", f"--out={folder / 'exported'}"],
            _describe_export,
        ),
        Command(
            "evaluate",
            "sweet_jax evaluate",
            lambda folder: [
                f"--run={seeds.run}",
                f"--data={test}",
                f"--output={folder / 'evaluation'}",
            ],
            lambda folder: describe_bank(folder / "evaluation" / "logits_test.npz"),
        ),
    ]


def _kill_once(
    command: Command, folder: Path, log: Path, rng: Random, length: float
) -> Kill:
    process = _start(command, folder, log)
    moment, number = rng.uniform(0, length), rng.choice(_SIGNALS)
    try:
        status = process.wait(moment)
    except subprocess.TimeoutExpired:
        pass
    else:
        good = status == 0
        return Kill("none", moment, "finished" if good else f"status {status}", 0.0)
    start = time.perf_counter()
    # A terminal sends ctrl-C to all of its processes; a scheduler to the first.
    if number == signal.SIGINT and rng.random() < 0.5:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    try:
        status = process.wait(6 * MOST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Kill(number.name, moment, "does not end", 6 * MOST_SECONDS)
    seconds = time.perf_counter() - start
    outcome = _judge(number, status, log, seconds)
    if outcome == "unborn" and moment > _BIRTH_SECONDS:
        outcome = "died without a word"
    if outcome == "stopped" and not _is_group_gone(process.pid):
        outcome = "a process of it lives on"
    # Of a study that was killed outright its cell ends by itself, and saves before.
    while not _is_group_gone(process.pid) and time.perf_counter() - start < 60:
        time.sleep(0.1)
    if not _is_group_gone(process.pid):
        outcome = "a process of it lives on"
        os.killpg(process.pid, signal.SIGKILL)
    return Kill(number.name, moment, outcome, seconds)


def _judge(number: signal.Signals, status: int, log: Path, seconds: float) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    if status == 0:
        return "finished"
    if number == signal.SIGKILL:
        return "killed" if status == -number else f"status {status}"
    if status == -number and not text:
        return "unborn"
    if "Traceback" in text or "Exception ignored" in text:
        return "a traceback"
    if status != STOPPED:
        return f"status {status}"
    last = text.strip().splitlines()[-1]
    if not last.startswith("stopped"):
        return f"the last line is {last[:60]!r}"
    return "stopped" if seconds < MOST_SECONDS else f"took {seconds:.0f} s"


def _is_group_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _start(command: Command, folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                *command.module.split(),
                *command.make_arguments(folder),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _make_main(method: str, seeds: Seeds) -> Command:
    def make_arguments(folder: Path) -> list[str]:
        return [
            f"--config=configs/sweet.py:task=file,method={method}",
            *list_fields(seeds),
            f"--workdir={folder / 'run'}",
        ]

    return Command(f"main, {method}", "sweet_jax.main", make_arguments, _describe_run)


def list_fields(seeds: Seeds) -> list[str]:
    s = seeds.settings
    return [
        f"--config.encoder.name={s.encoder.name}",
        f"--config.data.train_file={s.data.train_file}",
        f"--config.data.test_file={s.data.test_file}",
        "--config.data.max_train_examples=48",
        "--config.data.calibration_examples=24",
        "--config.data.max_length=16",
        "--config.data.buckets=(16,)",
        "--config.exits.layers=(0,1)",
        "--config.train.batch_size=8",
        "--config.train.num_epochs=2",
        "--config.train.checkpoint_every_steps=2",
        "--config.evaluate.batch_size=16",
        "--config.evaluate.measure_costs=False",
    ]


def _study(folder: Path, seeds: Seeds) -> list[str]:
    return [
        "--config=configs/study.py",
        "--config.data.task=file",
        *list_fields(seeds),
        "--config.study.methods=('sweet','early_exit')",
        "--config.study.seeds=(0,)",
        f"--workdir={folder / 'study'}",
    ]


def _describe_run(folder: Path) -> str:
    return describe_workdir(folder / "run")


def describe_workdir(path: Path) -> str:
    params = load_file(path / "model" / "params.safetensors")
    digests = [hash_bytes(params[name].tobytes()) for name in sorted(params)]
    rows = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    losses = [
        (row["member"], row["step"], row["loss"]) for row in rows if "loss" in row
    ]
    bank = describe_bank(path / "logits_test.npz")
    assert (path / "report.html").is_file()
    return hash_bytes(json.dumps([digests, losses, bank]).encode())


def _describe_study(folder: Path) -> str:
    cells = sorted((folder / "study" / "cells").iterdir())
    assert (folder / "study" / "study.html").is_file()
    return " ".join(f"{cell.name} {describe_workdir(cell)}" for cell in cells)


def _describe_export(folder: Path) -> str:
    with np.load(folder / "exported" / "weights.npz") as arrays:
        return hash_bytes(b"".join(arrays[name].tobytes() for name in sorted(arrays)))


def describe_bank(path: Path) -> str:
    with np.load(path) as arrays:
        return hash_bytes(arrays["logits"].tobytes())


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
