"""Every file of every folder, damaged in five ways, and what commands make of it."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from main_command import MainCommand

from campaign.kill import describe_bank, describe_workdir, hash_bytes, list_fields
from campaign.seeds import Seeds

FLIPPED = "one bit flipped"
WAYS: dict[str, Callable[[Path, Path], None]] = {
    "removed": lambda path, other: path.unlink(),
    "emptied": lambda path, other: os.truncate(path, 0),
    "cut to half": lambda path, other: os.truncate(path, path.stat().st_size // 2),
    FLIPPED: lambda path, other: _flip_bit(path),
    "that of another run": lambda path, other: _replace(path, other),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A folder under attack and the command that reads it.

    Attributes:
        name: in tables.
        source: the folder, as it should be.
        other: the same folder of another run.
        command: name of the module.
        make_arguments: damaged copy -> flags.
        describe: damaged copy, output file -> what must not differ if the status is 0.
        has_checksums: False for an encoder as it is published: one flipped bit of its
            weights is another encoder, which nothing there contradicts.
    """

    name: str
    source: Path
    other: Path
    command: str
    make_arguments: Callable[[Path], list[str]]
    describe: Callable[[Path, Path], str]
    has_checksums: bool = True


@dataclasses.dataclass(frozen=True)
class Damage:
    """A damaged file and what a command made of it.

    Attributes:
        file: within the folder.
        way: how it was damaged.
        outcome: good are `refused`, `rebuilt` (the file is whole again) and `as before`
            (the command needs no such file); else what went wrong.
        line: the last that the command wrote.
    """

    file: str
    way: str
    outcome: str
    line: str

    @property
    def is_good(self) -> bool:
        """Whether nothing wrong came of it."""
        return self.outcome in ("refused", "rebuilt", "as before")


def damage_all(target: Target, command: MainCommand, scratch: Path) -> Iterator[Damage]:
    """Yields what the command makes of each damaged file."""
    whole = scratch / "whole"
    shutil.copytree(target.source, whole)
    status, line = command.run(target.make_arguments(whole), target.command)
    if status != 0:
        raise RuntimeError(f"{target.name} ends with {status} undamaged: {line}")
    wanted = target.describe(whole, scratch)
    for path in sorted(p for p in target.source.rglob("*") if p.is_file()):
        name = path.relative_to(target.source)
        for way, change in WAYS.items():
            if way == FLIPPED and not target.has_checksums:
                continue
            copy = scratch / "copy"
            shutil.copytree(target.source, copy)
            change(copy / name, _find_other(target, name))
            before = _read(copy / name)
            if before == path.read_bytes():  # The other run has the same.
                shutil.rmtree(copy)
                continue
            running = command.start(target.make_arguments(copy), target.command)
            status, line = running.finish()
            text = running.output.read_text()
            if "Traceback" in text:
                outcome = "a traceback"
            elif status == 2 and line.startswith("error: "):
                outcome = "refused"
            elif status != 0:
                outcome = f"status {status}"
            elif _describe(target, copy, scratch) != wanted:
                outcome = "another result, and nothing said"
            else:
                outcome = "as before" if _read(copy / name) == before else "rebuilt"
            yield Damage(str(name), way, outcome, line)
            shutil.rmtree(copy)


def list_targets(seeds: Seeds, other: Seeds, scratch: Path) -> list[Target]:
    """Returns the folders under attack.

    Args:
        seeds: a finished run and what comes of it.
        other: the same of another seed.
        scratch: where half-finished runs are put.
    """
    answers = scratch / "answers.jsonl"
    lines = scratch / "lines.txt"
    scratch.mkdir(exist_ok=True)
    lines.write_text("a good film\nthe plot\na dull cast\n", encoding="utf-8")

    def predict(model: Path) -> list[str]:
        answers.unlink(missing_ok=True)
        answers.with_name("answers.jsonl.job.json").unlink(missing_ok=True)
        return [f"--model={model}", f"--input={lines}", f"--output={answers}"]

    def main(workdir: Path) -> list[str]:
        return [
            "--config=configs/sweet.py:task=file",
            *list_fields(seeds),
            "--config.data.max_train_examples=24",
            f"--workdir={workdir}",
        ]

    def evaluate(run: Path) -> list[str]:
        shutil.rmtree(scratch / "evaluation", ignore_errors=True)
        return [
            f"--run={run}",
            f"--data={seeds.task / 'test.jsonl'}",
            f"--output={scratch / 'evaluation'}",
        ]

    def encode(folder: Path) -> list[str]:
        shutil.rmtree(scratch / "run", ignore_errors=True)
        arguments = [a for a in main(scratch / "run") if "encoder.name" not in a]
        return [*arguments, f"--config.encoder.name={folder}"]

    half = _stop_early(seeds, scratch / "half")
    other_half = _stop_early(other, scratch / "other_half")
    return [
        Target(
            "finished run, same command",
            seeds.run,
            other.run,
            "sweet_jax.main",
            main,
            lambda copy, _: describe_workdir(copy),
        ),
        Target(
            "half-finished run, same command",
            half,
            other_half,
            "sweet_jax.main",
            main,
            lambda copy, _: describe_workdir(copy),
        ),
        Target(
            "finished run, evaluate",
            seeds.run,
            other.run,
            "evaluate",
            evaluate,
            lambda copy, _: _describe_evaluation(scratch / "evaluation"),
        ),
        Target(
            "model folder, predict",
            seeds.model,
            other.model,
            "predict",
            predict,
            lambda copy, _: hash_bytes(answers.read_bytes()),
        ),
        Target(
            "encoder folder, main",
            seeds.encoder,
            other.encoder,
            "sweet_jax.main",
            encode,
            lambda copy, _: describe_workdir(scratch / "run"),
            has_checksums=False,
        ),
    ]


def _describe(target: Target, copy: Path, scratch: Path) -> str:
    try:
        return target.describe(copy, scratch)
    except (OSError, ValueError) as error:
        return f"not whole: {error}"


def _stop_early(seeds: Seeds, folder: Path) -> Path:
    """Copies a run as if it had been killed behind its last checkpoint."""
    shutil.copytree(seeds.run, folder)
    for name in ("model", "plots"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in folder.iterdir():
        if path.suffix in (".npz", ".html") or path.name == "results.json":
            path.unlink()
    return folder


def _describe_evaluation(folder: Path) -> str:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    kept = {name: results[name] for name in ("exits", "at_speedup", "area")}
    return describe_bank(folder / "logits_test.npz") + hash_bytes(
        json.dumps(kept, sort_keys=True).encode()
    )


def _flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        place = Random(path.name).randrange(len(data))
        data[place] ^= 0x10
    path.write_bytes(data)


def _replace(path: Path, other: Path) -> None:
    if other.is_file():
        shutil.copyfile(other, path)


def _find_other(target: Target, name: Path) -> Path:
    return target.other / name


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
