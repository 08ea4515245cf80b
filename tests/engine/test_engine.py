"""The engine: answers in the order of rows, on any backend that is one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.arrays import Batch
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.engine.backend import SegmentOutput
from sweet_jax.engine.cascade_run import NO_POOLING, Answer, Pooling
from sweet_jax.engine.engine import Engine, make_backend, register_backend
from sweet_jax.engine.segments import Segments
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats
from sweet_jax.exits.exit_rule import ExitRule

ARGUMENTS = (nn.Dense(1), {}, 2, 3, "default")
EXITS = 3
ONES = np.ones(EXITS, np.float32)
# Sure exits are beyond it, the others have 0.5.
RULE = ExitRule("confidence", np.full(EXITS, 0.9, np.float32), ONES)


class Knowing:
    """A backend without a model: a row's first token tells where it is sure.

    Token 3 n + i is row n, which is sure from exit i on; logits tell the row, too.
    """

    num_segments, num_classes, num_programs = EXITS, 2, 0
    has_fixed_shapes = True
    packed = None

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, batch: Batch) -> SegmentOutput:
        """Keeps the first tokens."""
        return self.run(0, np.asarray(batch.token_ids)[:, 0], 0)

    def run(self, segment: int, rows: np.ndarray, length: int) -> SegmentOutput:
        """Answers (9 - n, -n) where the row is sure, (-n, -n) before."""
        self.calls.append(segment)
        sure = np.where(rows % EXITS <= segment, 9, 0)
        numbers = -(rows // EXITS)
        answers = np.stack([numbers + sure, numbers], 1).astype(np.float32)
        return SegmentOutput(rows, jnp.asarray(answers))

    def take(self, rows: np.ndarray, indices_R: np.ndarray) -> np.ndarray:
        """Returns some rows."""
        return rows[indices_R]

    def put(self, queue: np.ndarray, rows: np.ndarray, slots_R: np.ndarray) -> Any:
        """Returns the queue with them."""
        queue = queue.copy()
        queue[slots_R[slots_R < len(queue)]] = rows[slots_R < len(queue)]
        return queue

    def make_example(self, num_rows: int, length: int) -> Batch:
        """Is not asked for."""
        raise AssertionError

    def compile_lengths(self, num_rows: int, lengths: Sequence[int]) -> None:
        """Is not asked for."""
        raise AssertionError

    def warm_up(self, batch_rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Notes what there would be to compile."""
        self.calls.append((tuple(batch_rows), tuple(lengths)))

    def count_flops(self, segment: int, num_rows: int, length: int) -> float:
        """Returns 1 per row."""
        return float(num_rows)


def make_engine() -> Engine:
    return Engine(Knowing(), Shapes(4, (8, 16), 0))


def make_chunks(exits: Sequence[int], size: int = 5) -> list[Tokenized]:
    """Returns rows that leave at these exits, in chunks of a size."""
    texts = [[EXITS * n + i] * (1 + n % 16) for n, i in enumerate(exits)]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    rows = Tokenized(
        token_ids=np.array([t for text in texts for t in text], np.int32),
        type_ids=np.zeros(offsets[-1], np.int32),
        offsets=offsets,
        labels=np.zeros(len(texts), np.int32),
        row_ids=np.arange(len(texts), dtype=np.int64),
        truncated_rows=0,
    )
    return list(rows.cut(size))


def describe(answers: Sequence[Answer]) -> list[tuple[int, int, float]]:
    """Returns position, exit and number of the row that was answered."""
    return [(a.index, a.exit_index, -a.logits_C[1].item()) for a in answers]


@given(
    exits=st.lists(st.integers(0, EXITS - 1), max_size=40),
    size=st.integers(1, 12),
    pooling=st.sampled_from([NO_POOLING, Pooling(), Pooling(3), Pooling(99, 0.0)]),
)
@settings(max_examples=25)
def test_answers_come_in_the_order_of_rows(exits, size, pooling):
    stats = EngineStats.make(EXITS)
    answers = list(make_engine().run(make_chunks(exits, size), RULE, pooling, stats))
    assert describe(answers) == [(n, i, n) for n, i in enumerate(exits)]
    np.testing.assert_array_equal(
        stats.exit_counts, np.bincount(np.array(exits, int), minlength=EXITS)
    )


def test_what_a_run_took_is_added_up():
    engine, stats = make_engine(), EngineStats.make(EXITS)
    for exits in ([0, 2, 1, 0], [2, 2]):
        list(engine.run(make_chunks(exits), RULE, stats=stats))
    assert stats.exit_counts.tolist() == [2, 1, 3]
    assert stats.rows_run.tolist() == [6, 4, 3]
    assert len(stats.seconds) == 6
    # A run that is not asked for them leaves these alone.
    list(engine.run(make_chunks([0]), RULE))
    assert stats.rows_run.tolist() == [6, 4, 3]


def test_another_batch_size_runs_the_same_segments():
    engine = make_engine()
    other = engine.with_batch_size(2)
    assert other.segments is engine.segments
    assert (other.shapes.row_buckets, other.shapes.lengths) == ((1, 2), (8, 16))
    assert (engine.shapes.batch_size, other.shapes.pad_id) == (4, 0)
    exits = [0, 1, 2, 2, 1, 0, 2]
    one, two = (
        describe(list(e.run(make_chunks(exits), RULE))) for e in (engine, other)
    )
    assert one == two


def test_warming_up_prepares_every_shape():
    engine = make_engine()
    engine.warm_up()
    assert engine.segments.calls == [((1, 2, 4), (8, 16))]


def test_threads_do_not_get_each_others_answers():
    engine = make_engine()

    def run(exit_index: int) -> list[int]:
        chunks = make_chunks([exit_index] * 50)
        return [a.exit_index for a in engine.run(chunks, RULE, Pooling(9))]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run, range(EXITS))) == [[i] * 50 for i in range(EXITS)]


def test_a_wrong_rule_is_refused_before_anything_runs():
    engine = make_engine()

    def read() -> Any:
        raise AssertionError("a row was read")
        yield

    low = ExitRule("confidence", np.full(EXITS, 0.1, np.float32), ONES)
    with pytest.raises(ValueError, match=r"threshold=0.1.* is outside the range"):
        next(engine.run(read(), low))
    lte = ExitRule("lte", np.full(EXITS, 0.5, np.float32), ONES)
    with pytest.raises(ValueError, match="no heads for them"):
        next(engine.run(read(), lte))
    assert engine.segments.calls == []


@pytest.mark.usefixtures("registries")
def test_a_backend_is_made_by_its_name_with_all_that_it_is_told():
    given = []

    @register_backend("knowing")
    def make(*arguments: Any) -> Knowing:
        given.append(arguments)
        return Knowing()

    assert isinstance(make_backend("knowing", *ARGUMENTS), Knowing)
    assert given == [ARGUMENTS]
    assert type(make_backend("jax", *ARGUMENTS)) is Segments
    with pytest.raises(ValueError, match="'knowing' is registered already"):
        register_backend("knowing", make)
    register_backend("knowing", Segments, replace=True)
    assert type(make_backend("knowing", *ARGUMENTS)) is Segments
    with pytest.raises(ValueError, match=r"backend='knowin': .*did you mean knowing"):
        make_backend("knowin", *ARGUMENTS)


@pytest.mark.usefixtures("registries")
def test_what_makes_no_backend_is_refused():
    class Half:
        num_segments, num_classes = 2, 3

        def __init__(self, *arguments: object) -> None:
            assert arguments == ARGUMENTS

        def start(self, batch: object) -> None: ...

    register_backend("half", Half)
    with pytest.raises(
        ValueError,
        match="'half' makes a Half without has_fixed_shapes, packed, num_programs, run",
    ):
        make_backend("half", *ARGUMENTS)
    with pytest.raises(ValueError, match="backend 'three' is a int: register a class"):
        register_backend("three", 3)
