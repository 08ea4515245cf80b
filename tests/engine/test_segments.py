"""Segments on the device: compiled once per shape, and rows moved between them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sweet_jax.arrays import Batch, ExitOutput
from sweet_jax.devices import Programs
from sweet_jax.engine.segments import Segments, make_segment

PARAMS = {"weight": np.array([1.0, 10.0, 100.0], np.float32)}


def do_nothing() -> None:
    """Is called where a segment is traced."""


class Sums(nn.Module):
    """Three segments that compile at once and can be computed by hand.

    Segment i adds its weight times the sum of a row's tokens, each times its place.
    Places are what rows of one length share.
    """

    learns: bool = False
    at_trace: Any = do_nothing

    def setup(self) -> None:
        """Makes a weight for each segment."""
        self.weight = self.param("weight", nn.initializers.ones, (3,))

    def start(self, batch: Batch) -> dict[str, Any]:
        """Returns the carry before segment 0."""
        num_rows, length = batch.token_ids.shape
        return {
            "tokens": (batch.token_ids * batch.mask).astype(jnp.float32),
            "sum": jnp.zeros(num_rows),
            "places": jnp.arange(length, dtype=jnp.float32),
        }

    def run_segment(self, i: int, carry: dict[str, Any]) -> dict[str, Any]:
        """Adds to the sums."""
        self.at_trace()
        sums = carry["tokens"] @ carry["places"]
        return {**carry, "sum": carry["sum"] + self.weight[i] * sums}

    def exit_outputs(self, i: int, carry: dict[str, Any]) -> ExitOutput:
        """Returns the sums as logits."""
        logits = jnp.stack([carry["sum"], jnp.full_like(carry["sum"], i)], 1)
        return ExitOutput(logits, 1 / (1 + carry["sum"]) if self.learns else None)

    @nn.nowrap
    def split_carry(self, carry: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Returns what belongs to rows, and the places."""
        return {name: carry[name] for name in ("tokens", "sum")}, carry["places"]

    @nn.nowrap
    def join_carry(self, rows: dict[str, Any], shared: Any) -> dict[str, Any]:
        """Returns the carry again."""
        return {**rows, "places": shared}


def make_segments(**fields: Any) -> Segments:
    return Segments(Sums(**fields), PARAMS, 3, 2)


def make_batch(rng: np.random.Generator, num_rows: int, length: int) -> Batch:
    ids = rng.integers(1, 9, (num_rows, length)).astype(np.int32)
    mask = (np.arange(length) < rng.integers(1, length + 1, (num_rows, 1))).astype(
        np.int32
    )
    row = np.zeros(num_rows, np.int32)
    return Batch(ids, 0 * ids, mask, row, row.astype(np.float32), row)


def compute_sums(batch: Batch) -> np.ndarray:
    """Returns what the exits say, [E, R]."""
    ids, mask = np.asarray(batch.token_ids), np.asarray(batch.mask)
    places = np.arange(ids.shape[1])
    return np.outer([1, 11, 111], (ids * mask * places).sum(1))


@pytest.mark.parametrize("learns", [False, True])
def test_segments_hand_on_what_the_next_one_needs(rng, learns):
    """Of several lengths at a time, each with what its rows share."""
    segments = make_segments(learns=learns)
    assert (segments.num_segments, segments.num_classes) == (3, 2)
    batches = [make_batch(rng, 4, length) for length in (8, 3, 8)]
    outputs = [segments.start(batch) for batch in batches]
    for i in range(3):
        for batch, output in zip(batches, outputs, strict=True):
            expected = compute_sums(batch)[i]
            answers = np.asarray(output.answers)
            assert answers.shape == (4, 3 if learns else 2)
            np.testing.assert_array_equal(answers[:, 0], expected)
            np.testing.assert_array_equal(answers[:, 1], i)
            if learns:
                np.testing.assert_allclose(answers[:, 2], 1 / (1 + expected), 1e-6)
        if i < 2:
            outputs = [
                segments.run(i + 1, output.rows, batch.token_ids.shape[1])
                for batch, output in zip(batches, outputs, strict=True)
            ]


def test_rows_that_are_taken_or_put_go_on_as_they_would_have(rng):
    segments, batch = make_segments(), make_batch(rng, 4, 8)
    expected = compute_sums(batch)[1]

    def run(rows: Any) -> np.ndarray:
        return np.asarray(segments.run(1, rows, 8).answers)[:, 0]

    rows = segments.start(batch).rows
    taken = segments.take(rows, np.array([2, 0, 2], np.int32))
    np.testing.assert_array_equal(run(taken), expected[[2, 0, 2]])
    # A queue of three: row 3 gets the first slot, row 1 the last; 0 and 2 none.
    queue = segments.take(rows, np.array([2, 2, 2], np.int32))
    queue = segments.put(queue, rows, np.array([3, 2, 3, 0], np.int32))
    np.testing.assert_array_equal(run(queue), expected[[3, 2, 1]])


def test_a_shape_is_compiled_once(rng):
    segments = make_segments()
    counts, seconds = [], []
    for num_rows, length in ((4, 8), (4, 8), (2, 8), (4, 3), (2, 8)):
        segments.start(make_batch(rng, num_rows, length))
        counts.append(segments.num_programs)
        seconds.append(segments.compile_seconds)
    assert counts == [1, 1, 2, 3, 3]
    assert 0 < seconds[0] == seconds[1] < seconds[2] < seconds[3] == seconds[4]
    output = segments.start(make_batch(rng, 4, 8))
    segments.run(2, output.rows, 8)
    assert segments.num_programs == 4


def test_prepared_shapes_compile_nothing_more(rng):
    segments = make_segments()
    segments.warm_up((1, 4), (3, 8))
    assert segments.num_programs == 3 * 2 * 2
    before = segments.compile_seconds
    for num_rows, length in ((1, 3), (4, 8)):
        output = segments.start(make_batch(rng, num_rows, length))
        for i in (1, 2):
            output = segments.run(i, output.rows, length)
    assert segments.compile_seconds == before
    for i in range(3):
        assert segments.count_flops(i, 4, 8) > segments.count_flops(i, 1, 3) > 0
    with pytest.raises(KeyError):
        segments.count_flops(0, 2, 8)  # Nothing ran on it.


def test_threads_wait_for_one_compilation(rng, monkeypatch):
    inside, most, barrier = [], [], threading.Barrier(4)
    compile_one = Programs.compile

    def compile_slowly(programs: Programs, shape: Any, *args: Any) -> Any:
        inside.append(shape)
        most.append(len(inside))
        time.sleep(0.01)
        done = compile_one(programs, shape, *args)
        inside.pop()
        return done

    monkeypatch.setattr(Programs, "compile", compile_slowly)
    segments, batch = make_segments(), make_batch(rng, 4, 8)

    def run(_: int) -> np.ndarray:
        barrier.wait()
        return np.asarray(segments.start(batch).answers)[:, 0]

    with ThreadPoolExecutor(4) as pool:
        for sums in pool.map(run, range(4)):
            np.testing.assert_array_equal(sums, compute_sums(batch)[0])
    assert set(most) == {1}
    assert segments.num_programs == 1


def test_the_precision_is_that_of_training_wherever_it_compiles(rng):
    seen = []
    model = Sums(at_trace=lambda: seen.append(jax.config.jax_default_matmul_precision))
    segments = Segments(model, PARAMS, 3, 2, "highest")
    with jax.default_matmul_precision("bfloat16"):
        rows = segments.start(make_batch(rng, 4, 8)).rows
        segments.run(1, rows, 8)
        segments.warm_up((2,), (8,))
    assert set(seen) == {"highest"}


def test_examples_are_of_real_tokens_throughout():
    batch = make_segments().make_example(2, 5)
    assert batch.token_ids.shape == batch.type_ids.shape == (2, 5)
    assert batch.mask.all()
    assert batch.labels.shape == batch.weights.shape == batch.row_ids.shape == (2,)
    assert not batch.weights.any()


def test_a_segment_is_a_function_that_can_be_differentiated(rng):
    """Not yet jitted, and of the parameters it is given: exports trace it, too."""
    batch = make_batch(rng, 4, 8)

    def add_up(params: Any) -> jax.Array:
        rows, shared, _ = make_segment(Sums(), 0)(params, batch, None)
        return make_segment(Sums(), 2)(params, rows, shared)[2][:, 0].sum()

    gradient = jax.jit(jax.grad(add_up))(PARAMS)["weight"]
    total = compute_sums(batch)[0].sum()
    np.testing.assert_allclose(gradient, [total, 0, total])
