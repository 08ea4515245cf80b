"""Engines with three exits, on rows of their own or packed, and streams of rows."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import TINY_CONFIGS

from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.backend import Backend
from sweet_jax.engine.cascade_run import CascadeRun
from sweet_jax.engine.engine import Engine
from sweet_jax.engine.packed_run import PackedRun
from sweet_jax.engine.segments import Segments
from sweet_jax.engine.shapes import PackedShapes, Shapes
from sweet_jax.evaluation.collect import Collector
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.init import make_example_batch
from sweet_jax.models.multi_exit import MultiExitClassifier, join_models, split_model
from sweet_jax.settings.fields import ExitSettings

LAYERS, CLASSES, BATCH, BUCKETS = (0, 1, 3), 3, 4, (8, 16)
TEMPERATURES = np.array([0.5, 1.5, 1.0], np.float32)
LTE_RANGES = np.array([[0.3, 0.7], [0.2, 0.8], [0.4, 0.6]], np.float32)


def make_model(kind: str) -> tuple[Any, Any]:
    """Returns a model whose exits disagree, and its parameters."""
    family, _, method = kind.partition(" ")
    config = parse_config(TINY_CONFIGS[family])
    model = MultiExitClassifier(
        encoder=make_encoder(config, 4, jnp.float32),
        exit_layers=LAYERS,
        exit_numbers=(0, 1, 2),
        num_classes=CLASSES,
        features=config.hidden_size,
        settings=ExitSettings(pooling="mean", dropout=0.1, learn_to_exit=True),
        init_scale=1.0,
    )
    members = ((0,), (1,), (2,)) if method == "multi_model" else ((0, 1, 2),)
    joined = join_models(split_model(model, members, method == "sweet"))
    params = jax.jit(joined.init)(jax.random.key(0), make_example_batch())["params"]
    return joined, params


class PackingEngine(Engine):
    """Packs every stream, however short, into rows of 16 tokens."""

    def __init__(self, segments: Backend, shapes: Shapes) -> None:
        super().__init__(segments, shapes)
        self._packed_shapes = PackedShapes(shapes, 16)

    def _choose_run(self, start: list[Tokenized]) -> Callable[..., CascadeRun]:
        assert self.segments.packed is not None
        return functools.partial(PackedRun, self.segments.packed, self._packed_shapes)


KINDS = [
    "bert sweet",
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("bert multi_model", "modernbert sweet")
    ),
    *(
        pytest.param(kind, marks=pytest.mark.long)
        for kind in ("mpnet early_exit", "deberta-v2 sweet")
    ),
]
PACKED_KINDS = [
    "bert sweet packed",
    *(
        pytest.param(f"{kind} packed", marks=pytest.mark.slow)
        for kind in ("bert multi_model", "deberta sweet", "modernbert sweet")
    ),
]


@functools.cache
def serve(kind: str) -> tuple[Engine, Collector, Any]:
    """Returns an engine, a collector and parameters; examples share its programs."""
    name = kind.removesuffix(" packed")
    model, params = make_model(name)
    segments = Segments(model, params, len(LAYERS), CLASSES)
    collector = Collector(model, 8, BUCKETS, 0)
    engine_class = Engine if name == kind else PackingEngine
    return engine_class(segments, Shapes(BATCH, BUCKETS, 0)), collector, params


def make_rows(lengths: list[int], seed: int, repeat: bool = False) -> Tokenized:
    rng = np.random.default_rng(seed)
    texts = [rng.integers(4, 30, 4 if repeat else n) for n in lengths]
    if repeat:
        texts = [texts[0]] * len(texts)
    offsets = np.cumsum([0, *map(len, texts)])
    return Tokenized(
        token_ids=np.concatenate([np.zeros(0, np.int64), *texts]).astype(np.int32),
        type_ids=np.zeros(offsets[-1], np.int32),
        offsets=offsets,
        labels=np.zeros(len(texts), np.int32),
        row_ids=np.arange(len(texts), dtype=np.int64),
        truncated_rows=0,
    )


def cut(rows: Tokenized, sizes: list[int]) -> list[Tokenized]:
    """Returns the rows as a stream of chunks, the last as large as it must be."""
    single = list(rows.cut(1))
    bounds = np.minimum(np.cumsum([0, *sizes, rows.num_rows]), rows.num_rows)
    return [
        join(single[first:stop])
        for first, stop in itertools.pairwise(bounds)
        if first < stop
    ]


def join(parts: list[Tokenized]) -> Tokenized:
    """Returns rows of several as one."""
    return Tokenized(
        np.concatenate([part.token_ids for part in parts]),
        np.concatenate([part.type_ids for part in parts]),
        np.cumsum([0, *(part.lengths.sum() for part in parts)]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.row_ids for part in parts]),
        0,
    )
