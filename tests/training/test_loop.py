"""The loop of one member: what is called after which step, kept, and taken up again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from dense_model import (
    EXIT_LAYERS,
    compile_once,
    init_dense_params,
    make_dense_model,
    make_rows,
)

from sweet_jax.arrays import Params
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training import loop
from sweet_jax.training.finite import NonFiniteError
from sweet_jax.training.loop import Progress, StateStore, train_member
from sweet_jax.training.member_training import MemberTraining, TrainData
from sweet_jax.training.methods import make_members
from sweet_jax.training.preemption import Interrupted

Calls = list[tuple[str, int, Params]]


class Memory:
    """States by step, kept in memory, and what was called beside them, in order."""

    def __init__(self) -> None:
        self.states: dict[int, Any] = {}
        self.calls: Calls = []

    def save(self, step: int, state: Any) -> None:
        """Keeps a state of the host."""
        self.states[step] = state
        self.calls.append(("save", step, state.params))

    def restore_newest(
        self, make_target: Callable[[int], Any]
    ) -> tuple[int, Any] | None:
        """Returns the newest state, placed as its target is."""
        if not self.states:
            return None
        step = max(self.states)
        target = make_target(step)
        return step, jax.tree.map(
            lambda leaf, like: jax.device_put(leaf, like.sharding),
            self.states[step],
            target,
        )

    def note(self, name: str) -> Callable[[int, Params], None]:
        """Returns a function that notes the parameters that it is called with."""

        def call(number: int, params: Params) -> None:
            self.calls.append((name, number, jax.device_get(params)))

        return call

    @property
    def order(self) -> list[str]:
        """The calls, as one word each."""
        return [f"{name} {number}" for name, number, _ in self.calls]


def make_training(every: int = 100, **config: Any) -> MemberTraining:
    """Returns 2 epochs of 3 steps."""
    train = {"batch_size": 5, "num_epochs": 2, "checkpoint_every_steps": every}
    fields = {"exits": {"layers": EXIT_LAYERS}, "train": train, **config}
    settings = from_config_dict(fields)
    (member,) = make_members(settings, len(EXIT_LAYERS))
    data = TrainData(make_rows(), (8,), 0)
    return MemberTraining(make_dense_model(), member, data, settings)


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory) -> Iterator[None]:
    """Compiled once: all trainings here have the same step."""
    with compile_once(tmp_path_factory.mktemp("programs")):
        yield


@pytest.fixture(scope="module")
def initial() -> Params:
    return init_dense_params(make_dense_model())


def train(
    folder: Path,
    initial: Params,
    memory: Memory,
    at_steps: tuple[int, ...] = (),
    **config: Any,
) -> Params:
    """Returns parameters on the host; epochs and observed steps are noted."""
    params = train_member(
        make_training(**config),
        initial,
        memory,
        Progress(
            folder / "metrics.jsonl",
            quiet=True,
            on_epoch_end=memory.note("epoch"),
            at_steps={step: memory.note("observe") for step in at_steps},
        ),
    )
    return jax.device_get(params)


def read_steps(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def assert_same(one: Params, other: Params) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def whole(initial, tmp_path_factory) -> tuple[Memory, Params, list[dict[str, Any]]]:
    """A training that nothing interrupts, with a checkpoint after every step."""
    folder, memory = tmp_path_factory.mktemp("whole"), Memory()
    params = train(folder, initial, memory, every=1)
    return memory, params, read_steps(folder)


def test_a_store_is_what_the_loop_asks_of_it():
    assert isinstance(Memory(), StateStore)


def test_calls_follow_their_steps_with_the_parameters_of_these(
    initial, whole, tmp_path
):
    memory = Memory()
    params = train(tmp_path, initial, memory, (0, 3, 4), every=4)
    assert memory.order == [
        "observe 0",
        "epoch 1",
        "observe 3",
        "save 4",
        "observe 4",
        "epoch 2",
        "save 6",
    ]
    steps = {0: initial} | {s: state.params for s, state in whole[0].states.items()}
    for name, number, found in memory.calls:
        assert_same(found, steps[3 * number if name == "epoch" else number])
    assert_same(params, whole[1])


def test_a_row_per_step_tells_its_epoch(initial, whole):
    rows = whole[2]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in rows] == [0.3333, 0.6667, 1, 1.3333, 1.6667, 2]
    assert all(len(row["loss"]) == 3 for row in rows)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_it_goes_on_from_the_newest_state_bit_for_bit(initial, whole, tmp_path, step):
    earlier, params, rows = whole
    memory = Memory()
    memory.states = {s: earlier.states[s] for s in range(1, step + 1)}
    again = train(tmp_path, initial, memory, (0, step, 6), every=1)
    assert_same(again, params)
    assert memory.order[0] == f"observe {step}", "of the state that was taken up"
    assert_same(memory.calls[0][2], earlier.states[step].params)
    assert [f"save {s}" for s in range(step + 1, 7)] == [
        call for call in memory.order if call.startswith("save")
    ]
    timeless = [
        {k: v for k, v in row.items() if "second" not in k} for row in rows[step:]
    ]
    found = [
        {k: v for k, v in row.items() if "second" not in k}
        for row in read_steps(tmp_path)
    ]
    assert found == timeless


def test_a_finished_training_takes_no_step(initial, whole, tmp_path):
    memory = Memory()
    memory.states = dict(whole[0].states)
    assert_same(train(tmp_path, initial, memory, (6,)), whole[1])
    assert memory.order == ["observe 6"]
    assert not read_steps(tmp_path)


def test_asked_to_stop_it_keeps_the_step_and_observes_it_next_time(
    initial, whole, tmp_path, monkeypatch
):
    memory = Memory()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "should_stop", lambda is_asked, step: step == 2)
        with pytest.raises(Interrupted):
            train(tmp_path, initial, memory, (2,))
    assert memory.order == ["save 2"]
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2]
    assert_same(train(tmp_path, initial, memory, (2,)), whole[1])
    assert memory.order[:3] == ["save 2", "observe 2", "epoch 1"]


def test_a_bad_step_is_neither_kept_nor_shown_to_anybody(
    initial, tmp_path, monkeypatch
):
    memory, read = Memory(), loop.read_metrics

    def refuse(step: int, metrics: Any) -> Any:
        if step == 3:
            raise NonFiniteError("the loss is nan")
        return read(step, metrics)

    monkeypatch.setattr(loop, "read_metrics", refuse)
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        train(tmp_path, initial, memory, (3,), every=1)
    assert memory.order == ["save 1", "save 2"]


def test_weights_that_are_no_numbers_are_refused_before_anything(initial, tmp_path):
    memory = Memory()
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), initial)
    with pytest.raises(NonFiniteError, match="before the first step"):
        train(tmp_path, broken, memory, (0,))
    assert not memory.calls


def test_a_state_that_is_kept_holds_numbers_alone(initial, tmp_path, monkeypatch):
    """Losses may still be finite when a parameter is not."""
    memory = Memory()

    def refuse(state: Any, step: int) -> None:
        if step == 2:
            raise NonFiniteError("a parameter is nan")

    monkeypatch.setattr(loop, "check_state", refuse)
    with pytest.raises(NonFiniteError, match="a parameter is nan"):
        train(tmp_path, initial, memory, every=1)
    assert memory.order == ["save 1"]


def test_the_next_phase_begins_with_an_optimiser_of_its_own(initial, tmp_path):
    """Also where a process takes up the state of the last step of the one before."""
    config = {"method": "two_stage", "every": 3}
    memory, again = Memory(), Memory()
    params = train(tmp_path, initial, memory, **config)
    assert [call for call in memory.order if "save" in call] == [
        *("save 3", "save 6", "save 9", "save 12")
    ]
    # The first phase is 6 steps long; its end holds its own optimiser.
    first, second = (
        {leaf.shape for leaf in jax.tree.leaves(memory.states[s].opt_state)}
        for s in (6, 9)
    )
    assert first != second
    again.states = {6: memory.states[6]}
    assert_same(train(tmp_path, initial, again, **config), params)
