"""A real multi-exit model over an encoder of dense layers, which compiles at once.

For what belongs to methods and the training loop, and not to attention.
"""

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.experimental.compilation_cache import compilation_cache

from sweet_jax.arrays import Params
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.evaluation.frozen_states import FrozenStates
from sweet_jax.evaluation.probes import Probe, fit_probe
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.init import init_params, make_example_batch
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.runs.probe_exits import probe_exits
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.checkpoint import Checkpoints
from sweet_jax.training.contrastive import begin_contrastive
from sweet_jax.training.loop import Progress, Start, train_member
from sweet_jax.training.member_training import MemberTraining, TrainData
from sweet_jax.training.methods import make_members
from sweet_jax.trees import flatten_paths

WIDTH, VOCABULARY, EXIT_LAYERS = 8, 32, (0, 1, 3)


@dataclasses.dataclass(frozen=True)
class DenseConfig:
    """What an encoder asks of its config."""

    max_positions: int = 16
    dropout: float = 0.1


class WordTable(nn.Module):
    """Embeddings of words alone."""

    config: DenseConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, token_ids: Any, type_ids: Any, train: bool, positions: Any = None
    ) -> jax.Array:
        """Returns a state per token."""
        return nn.Embed(VOCABULARY, WIDTH, name="words")(token_ids)


class DenseLayer(nn.Module):
    """A residual dense layer with dropout, token by token."""

    config: DenseConfig
    dtype: Any
    attention_fn: Any

    @nn.compact
    def __call__(self, x_BLD: jax.Array, mask: Any, train: bool) -> jax.Array:
        """Returns the next states."""
        change_BLD = jnp.tanh(nn.Dense(WIDTH, name="dense")(x_BLD))
        return x_BLD + nn.Dropout(self.config.dropout)(
            change_BLD, deterministic=not train
        )


class DenseEncoder(Encoder):
    """Dense layers on word embeddings."""

    embeddings_class = WordTable
    layer_class = DenseLayer


def make_dense_model(dropout: float = 0.1) -> MultiExitClassifier:
    """Returns three exits on four layers."""
    return MultiExitClassifier(
        encoder=DenseEncoder(DenseConfig(dropout=dropout), EXIT_LAYERS[-1] + 1),
        exit_layers=EXIT_LAYERS,
        exit_numbers=(0, 1, 2),
        num_classes=2,
        features=WIDTH,
        settings=ExitSettings(pooling="mean", dropout=dropout),
        init_scale=0.2,
    )


def init_dense_params(model: MultiExitClassifier) -> Params:
    """Returns parameters on the host."""
    encoder = model.encoder.clone(parent=None)
    loaded: Any = encoder.init(jax.random.key(0), make_example_batch())["params"]
    return jax.device_get(init_params(model, jax.random.key(1), loaded, None))


def make_rows(count: int = 15) -> Tokenized:
    """Returns rows of 2 to 8 tokens whose label is the parity of the first."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, count)
    ids = rng.integers(4, VOCABULARY, lengths.sum()).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tokenized(
        ids,
        np.zeros_like(ids),
        starts,
        ids[starts[:-1]] % 2,
        np.arange(count, dtype=np.int64),
        0,
    )


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        root: its directory.
        params: after the last step, by path.
        rows: metrics.jsonl, seconds left out.
    """

    root: Path
    params: dict[str, np.ndarray]
    rows: list[dict[str, Any]]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The rows of steps."""
        return [row for row in self.rows if "loss" in row]


def train_dense(
    root: Path,
    buckets: tuple[int, ...] = (8,),
    model: MultiExitClassifier | None = None,
    rows: Tokenized | None = None,
    start_fn: Callable[[MemberTraining, Params, int], Start] | None = None,
    **config: Any,
) -> Trained:
    """Trains a method from, or on with, what lies in `root`: a checkpoint every step.

    15 rows in batches of 5 (which one device takes): 3 steps an epoch, and 2 epochs
    unless `config` says else.
    """
    training = make_dense_training(buckets, model, rows, **config)
    root.mkdir(exist_ok=True)
    metrics = root / "metrics.jsonl"
    params = train_member(
        training,
        init_dense_params(training.model),
        Checkpoints(root / "steps", log=metrics, keep=100),
        Progress(metrics, quiet=True),
        None if start_fn is None else functools.partial(start_fn, training),
    )
    lines = (root / "metrics.jsonl").read_text().splitlines()
    untimed = [
        {k: v for k, v in json.loads(line).items() if "second" not in k}
        for line in lines
    ]
    return Trained(root, flatten_paths(jax.device_get(params)), untimed)


def make_dense_training(
    buckets: tuple[int, ...] = (8,),
    model: MultiExitClassifier | None = None,
    rows: Tokenized | None = None,
    **config: Any,
) -> MemberTraining:
    """Returns what `train_dense` trains."""
    fields = {
        **config,
        "exits": {"layers": EXIT_LAYERS, "init": "random", **config.get("exits", {})},
        "train": {
            "batch_size": 5,
            "num_epochs": 2,
            "checkpoint_every_steps": 1,
            **config.get("train", {}),
        },
    }
    settings = from_config_dict(fields)
    (member,) = make_members(settings, len(EXIT_LAYERS))
    train = settings.train
    member = begin_contrastive(
        member,
        max(train.contrastive_epochs, 0),
        train.num_epochs,
        settings.optim.contrastive_learning_rate,
    )
    data = TrainData(rows or make_rows(), buckets, 0)
    return MemberTraining(model or make_dense_model(), member, data, settings)


def probe_dense(training: MemberTraining, params: Params, step: int) -> Start:
    """Starts exits as a run does whose encoder as published is that of `params`."""
    model = training.model
    published = FrozenStates(
        model.encoder,
        model.exit_layers,
        model.settings.pooling,
        batch_size=training.settings.train.batch_size
        // training.settings.train.accumulate_steps,
        buckets=training.data.buckets,
        pad_id=0,
    )

    def find_probes() -> list[Probe]:
        rows = training.data.rows
        return [
            fit_probe(states_ND, rows.labels, model.num_classes)
            for states_ND in published.collect(params["encoder"], None, rows)
        ]

    return probe_exits(training, published, find_probes, params, step)


@contextlib.contextmanager
def compile_once(cache: Path) -> Iterator[None]:
    """Keeps compiled programs for trainings that repeat each other."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(cache), 0.0, 0), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def copy_up_to(whole: Trained, root: Path, step: int) -> Path:
    """Returns a copy of a training as it lay on the disk after a step."""
    shutil.copytree(whole.root, root)
    for folder in (root / "steps").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    return root


def count_starts(trained: Trained, step: int) -> int:
    """Returns how often a process began or took up a phase after `step` steps."""
    return sum("cost" in row and row["step"] == step for row in trained.rows)


def assert_same_training(one: Trained, other: Trained) -> None:
    """Compares every loss, learning rate and norm, and every parameter, bit for bit."""
    assert one.steps == other.steps
    assert one.params.keys() == other.params.keys()
    for path, leaf in one.params.items():
        np.testing.assert_array_equal(leaf, other.params[path], err_msg=path)
