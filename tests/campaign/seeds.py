"""What is attacked: a tiny encoder and task, a finished run, and what comes of it."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from tiny_configs import TINY_BERT
from tiny_encoders import make_sentences, write_tiny_encoder, write_tiny_task

from sweet_jax.export.folder import export_folder
from sweet_jax.runs import pipeline
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Folders that are as they should be; attacks work on copies.

    Attributes:
        root: holds all of the others.
        settings: of the run.
    """

    root: Path
    settings: Settings

    @property
    def encoder(self) -> Path:
        """An encoder of 4 layers."""
        return self.root / "encoder"

    @property
    def task(self) -> Path:
        """A data folder: train.jsonl, test.jsonl."""
        return self.root / "task"

    @property
    def run(self) -> Path:
        """The work directory of a finished run, its checkpoints of all steps kept."""
        return self.root / "run"

    @property
    def model(self) -> Path:
        """Its model folder."""
        return self.run / "model"

    @property
    def checkpoints(self) -> Path:
        """Its checkpoints."""
        return self.run / "checkpoints" / "model" / "steps"

    @property
    def exported(self) -> Path:
        """The model as an exported folder."""
        return self.root / "exported"


def make_seeds(root: Path, seed: int = 0) -> Seeds:
    """Makes what is attacked; a minute without a cache of compiled programs."""
    for name in ("encoder", "task"):
        (root / name).mkdir(parents=True)
    write_tiny_encoder(root / "encoder", TINY_BERT)
    write_tiny_task(root / "task")
    settings = from_config_dict(
        {
            "seed": seed,
            "encoder": {"name": str(root / "encoder")},
            "exits": {"layers": (0, 1)},
            "data": {
                "task": "file",
                "train_file": str(root / "task" / "train.jsonl"),
                "test_file": str(root / "task" / "test.jsonl"),
                "max_train_examples": 24,
                "calibration_examples": 24,
                "max_length": 16,
                "buckets": (16,),
            },
            "train": {"batch_size": 8, "num_epochs": 2, "checkpoint_every_steps": 2},
            "evaluate": {"batch_size": 16, "measure_costs": False},
        }
    )
    seeds = Seeds(root, settings)
    pipeline.run(settings, seeds.run, quiet=True)
    export_folder(seeds.model, seeds.exported)
    return seeds


def write_table(path: Path) -> Path:
    """Writes labelled rows as .csv, .tsv or .jsonl, by the name's ending."""
    rows = make_sentences(24, 1)
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix)
    if separator is None:
        shutil.copyfile(path.parent.parent / "task" / "train.jsonl", path)
        return path
    rng = np.random.default_rng(0)
    lines = [separator.join(("sentence", "label"))]
    for row in rows:
        text = str(row["sentence"])
        quoted = separator == "," and rng.random() < 0.3
        lines.append(separator.join((f'"{text}, x"' if quoted else text, row["label"])))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
