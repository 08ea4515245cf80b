"""A tiny real encoder folder and a tiny real task, for tests of the whole pipeline."""

import functools
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from main_command import MainCommand
from tiny_configs import TINY_BERT, TINY_CONFIGS
from tiny_encoders import write_tiny_encoder, write_tiny_task

from benchmarks.tiny_model import write_tiny_model
from sweet_jax.settings import registries as all_registries
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.system.registry import Registry

# `nohup` and a shell's background jobs ignore these, and so would every command that a
# test starts and stops.
for _number, _default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

# Examples that take long on a busy machine are no failures.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")

# Tracing makes objects by the million that live for long: with Python's own limits a
# tenth of the suite's time goes into looking for cycles among them.
gc.set_threshold(200_000, 20, 100)


def pytest_collection_finish() -> None:
    """Leaves what the imports made out of every later collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test registers is forgotten after it."""
    for registry in vars(all_registries).values():
        if isinstance(registry, Registry):
            monkeypatch.setattr(registry, "_values", dict(registry._values))
            monkeypatch.setattr(registry, "_entry_points", None)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT."""
    return write_tiny_encoder(tmp_path_factory.mktemp("tiny_encoder"), TINY_BERT)


@pytest.fixture(scope="session")
def tiny_mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an MPNet, whose layers share a table."""
    folder = tmp_path_factory.mktemp("tiny_mpnet")
    return write_tiny_encoder(folder, TINY_CONFIGS["mpnet"])


@pytest.fixture(scope="session")
def tiny_modernbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ModernBERT, whose final norm every exit owns."""
    folder = tmp_path_factory.mktemp("tiny_modernbert")
    return write_tiny_encoder(folder, TINY_CONFIGS["modernbert"])


@pytest.fixture(scope="session")
def tiny_deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a DeBERTa-v2: a normed table, a convolution, no pooler."""
    folder = tmp_path_factory.mktemp("tiny_deberta")
    return write_tiny_encoder(folder, TINY_CONFIGS["deberta-v2"])


@pytest.fixture(scope="session")
def make_tiny_encoder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """Returns family -> the folder of a tiny encoder, written once."""

    @functools.cache
    def make(family: str) -> Path:
        folder = tmp_path_factory.mktemp(f"tiny_{family}")
        return write_tiny_encoder(folder, TINY_CONFIGS[family])

    return make


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of compiled programs and tokens for all tests, never the user's."""
    root = tmp_path_factory.getbasetemp()
    # Under xdist every worker has a directory of its own below the common one.
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"


@pytest.fixture(scope="session")
def command(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> Iterator[MainCommand]:
    """The main command without a network."""
    command = MainCommand(tmp_path_factory.mktemp("command"), shared_cache)
    yield command
    command.close()


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and test.jsonl of short sentences."""
    return write_tiny_task(tmp_path_factory.mktemp("tiny_task"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of 2 layers, for single texts."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny_model") / "model")


@pytest.fixture
def tiny_config(tiny_encoder: Path, tiny_task: Path) -> dict[str, Any]:
    """Settings, as a nested dict, of a run that takes seconds."""
    return {
        "method": "sweet",
        "encoder": {"name": str(tiny_encoder)},
        "exits": {"layers": (0, 1, 3), "init": "random"},
        "data": {
            "task": "file",
            "train_file": str(tiny_task / "train.jsonl"),
            "test_file": str(tiny_task / "test.jsonl"),
            "max_train_examples": 40,
            "calibration_examples": 24,
            "max_length": 16,
            "buckets": (8, 16),
        },
        "train": {"batch_size": 8, "num_epochs": 2, "checkpoint_every_steps": 3},
        "evaluate": {"batch_size": 16, "measure_costs": False, "baselines": False},
    }


@pytest.fixture
def tiny_settings(tiny_config: dict[str, Any]) -> Settings:
    """The same as settings."""
    return from_config_dict(tiny_config)
