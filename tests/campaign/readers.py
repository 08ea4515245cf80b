"""The readers of the package: what each is handed, and how it is asked to read."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file

from campaign.seeds import Seeds, write_table
from sweet_jax.data.lines import LineReader
from sweet_jax.data.sources import load_task
from sweet_jax.report import format_run
from sweet_jax.runs.inputs import prepare
from sweet_jax.serving.inputs import read_inputs
from sweet_jax.serving.load import load
from sweet_jax.settings import fields as settings_lib
from sweet_jax.settings.fields import DataSettings
from sweet_jax.standalone.loader import ExportedClassifier
from sweet_jax.study.archive import open_study
from sweet_jax.study.folder import read_study
from sweet_jax.thresholds.choice import pick_target
from sweet_jax.training.checkpoint import Checkpoints
from sweet_jax.trees import unflatten_paths

_RESULTS = Path(__file__).parents[2] / "results"


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader under attack.

    Attributes:
        name: in tables.
        find: seeds -> the folder to copy and change.
        read: reads a changed copy.
    """

    name: str
    find: Callable[[Seeds], Path]
    read: Callable[[Path, Seeds], object]


def rehash(folder: Path) -> None:
    """Writes checksums that fit, as whoever made the folder would."""
    for sums in folder.rglob("checksums.json"):
        if not sums.is_file() or sums.stat().st_size > 1 << 20:
            continue
        files = (p for p in sums.parent.rglob("*") if p.is_file() and p != sums)
        found = {
            path.relative_to(sums.parent).as_posix(): _hash(path)
            for path in sorted(files)
            if path.stat().st_size < 1 << 24
        }
        sums.write_text(json.dumps(found), encoding="utf-8", errors="surrogateescape")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_encoder(folder: Path, seeds: Seeds) -> None:
    prepare(settings_lib.replace_fields(seeds.settings, {"encoder.name": str(folder)}))


def _read_model(folder: Path, seeds: Seeds) -> None:
    classifier = load(folder)
    # Reads the calibration rows.
    classifier.choose_thresholds(pick_target(speedup=1.2), "confidence")
    classifier.make_examples(["a good film"])


def _make_table_reader(ending: str) -> Reader:
    def find(seeds: Seeds) -> Path:
        folder = seeds.root / f"table{ending}"
        if not folder.exists():
            folder.mkdir()
            write_table(folder / f"rows{ending}")
        return folder

    def read(folder: Path, seeds: Seeds) -> None:
        path = folder / f"rows{ending}"
        # A pipe is waited for, as the command does; here nobody writes to it.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with io.FileIO(number) as file:
            for _ in read_inputs(LineReader(file), ending[1:], 1, ("sentence",)):
                pass

    return Reader(f"predict's {ending[1:]}", find, read)


def _make_task_reader(ending: str) -> Reader:
    def read(folder: Path, seeds: Seeds) -> None:
        path = str(folder / f"rows{ending}")
        load_task(DataSettings(task="file", train_file=path, test_file=path))

    table = _make_table_reader(ending)
    return Reader(f"training's {ending[1:]}", table.find, read)


def _read_data_folder(folder: Path, seeds: Seeds) -> None:
    load_task(DataSettings(task=str(folder)))


def _read_checkpoint(folder: Path, seeds: Seeds) -> None:
    (newest,) = seeds.checkpoints.glob("[0-9]*/state.safetensors")
    with safe_open(newest, framework="np") as state:
        run = state.metadata()["run"]
    target = unflatten_paths(load_file(newest))
    store = Checkpoints(folder, run, seeds.root / "metrics.jsonl")
    store.restore_newest(lambda step: target)


def _read_run(folder: Path, seeds: Seeds) -> None:
    format_run(folder)


def _find_archive(seeds: Seeds) -> Path:
    folder = seeds.root / "archive"
    if not folder.exists():
        folder.mkdir()
        kept = _RESULTS / "rotten_tomatoes-minilm-l6-learning-rates.zip"
        shutil.copyfile(kept, folder / "study.zip")
    return folder


def _find_study(seeds: Seeds) -> Path:
    folder = seeds.root / "study"
    if not folder.exists():
        folder = open_study(_find_archive(seeds) / "study.zip").rename(folder)
    return folder


def _read_study(folder: Path, seeds: Seeds) -> None:
    read_study(folder)


def _read_archive(folder: Path, seeds: Seeds) -> None:
    read_study(open_study(folder / "study.zip"))


READERS = {
    reader.name: reader
    for reader in (
        Reader("encoder folder", lambda s: s.encoder, _read_encoder),
        Reader("model folder", lambda s: s.model, _read_model),
        Reader(
            "exported folder", lambda s: s.exported, lambda f, _: ExportedClassifier(f)
        ),
        *map(_make_task_reader, (".csv", ".tsv", ".jsonl")),
        *map(_make_table_reader, (".csv", ".tsv", ".jsonl")),
        Reader("data folder", lambda s: s.task, _read_data_folder),
        Reader("checkpoints", lambda s: s.checkpoints, _read_checkpoint),
        Reader("finished run", lambda s: s.run, _read_run),
        Reader("study", _find_study, _read_study),
        Reader("archive of a study", _find_archive, _read_archive),
    )
}
