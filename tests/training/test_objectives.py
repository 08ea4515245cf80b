"""What a method says of its steps: which objective each has, and what is no method."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.training.objectives import Member, Objective, Phase, find_problem

JOINT = Objective((1.0, 1.0), (1.0, 1.0, 1.0))


@given(st.integers(1, 5), st.integers(1, 40))
def test_parts_of_a_phase_are_equal_and_turns_go_round(count, num_steps):
    objectives = tuple(Objective((), (float(i),)) for i in range(count))
    parts, turns = (
        [
            objectives.index(Phase(objectives, takes).choose_objective(i, num_steps))
            for i in range(num_steps)
        ]
        for takes in (False, True)
    )
    assert parts == sorted(parts)
    sizes = np.bincount(parts, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    assert turns == [i % count for i in range(num_steps)]


def _make_member(phase: Phase, name: str = "", exits: tuple[int, ...] = (0, 1, 2)):
    return (Member(name, exits, (phase,)),)


def _spoil(**fields: Any) -> Phase:
    """Returns a phase with fields of wrong types, which the tests' checks refuse."""
    phase = Phase((JOINT,))
    for name, value in fields.items():
        object.__setattr__(phase, name, value)
    return phase


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (None, "it returns None, expected a tuple of Members"),
        ((), "its members (name, exits) are []; allowed are [('', (0, 1, 2))], or"),
        (_make_member(Phase((JOINT,)), exits=(0, 2)), "allowed are [('', (0, 1, 2))]"),
        (_make_member(Phase((JOINT,)), name="mine"), "are [('mine', (0, 1, 2))]"),
        ((Member("", (0, 1, 2), ()),), "phases=(), expected a tuple of one or more"),
        (_make_member(_spoil(objectives=JOINT)), "objectives=Objective("),
        (_make_member(Phase(())), "phase 0: objectives=(), expected a tuple"),
        (
            _make_member(Phase((JOINT,), steps_percent=0.0)),
            "steps_percent=0.0, allowed",
        ),
        (_make_member(_spoil(trainable=".*")), "expected a tuple of regexes"),
        (_make_member(Phase((JOINT,), trainable=("(",))), "'(', which is not a regex"),
        (
            _make_member(Phase((Objective((1.0,), (1.0, 1.0, 1.0)),))),
            "seam_scale=(1.0,), expected a tuple of 2 numbers",
        ),
        (
            _make_member(Phase((Objective((1.0, np.nan), (1.0, 1.0, 1.0)),))),
            "seam_scale=(1.0, nan), allowed are finite numbers of 0 or more",
        ),
        (
            _make_member(Phase((Objective((1.0, 1.0), (0.0, 0.0, 0.0)),))),
            "is 0 everywhere: no exit learns",
        ),
        (
            _make_member(Phase((Objective((1.0, 1.0), (1.0, 1.0, 1.0), teacher=3),))),
            "teacher=3, allowed is 0 to 2",
        ),
        (
            _make_member(Phase((dataclasses.replace(JOINT, state_scale=(1.0, 1.0)),))),
            "state_scale=(1.0, 1.0), expected a tuple of 3 numbers",
        ),
        (
            _make_member(Phase((Objective((1.0, 1.0), (1.0, -1.0, 1.0)),))),
            "exit_scale=(1.0, -1.0, 1.0), allowed are finite numbers of 0 or more",
        ),
        (
            _make_member(Phase((JOINT,), steps_percent=np.inf)),
            "steps_percent=inf, allowed is a number above 0",
        ),
        (_make_member(_spoil(trainable=(1,))), "trainable has 1, which is not a regex"),
        (
            (Member("", (0, 1, 2), (Phase((JOINT,)), Phase(()))),),
            "phase 1: objectives=()",
        ),
    ],
)
def test_what_cannot_be_trained_is_named_in_one_line(members, message):
    problem = find_problem(members, 3)
    assert problem is not None
    assert message in problem
    assert "\n" not in problem


def test_members_own_all_exits_or_one_each():
    alone = Phase((Objective((), (1.0,)),))
    each = tuple(Member(f"member_{i}", (i,), (alone,)) for i in range(3))
    assert find_problem(each, 3) is None
    assert find_problem(list(each), 3) is None
    assert find_problem(_make_member(Phase((JOINT,))), 3) is None
    for wrong in (each[:2], each[::-1], (*each, each[0])):
        problem = find_problem(wrong, 3)
        assert problem is not None
        assert "or [('member_0', (0,)), ('member_1', (1,))" in problem


def test_a_phase_may_hold_its_exits_back_from_the_encoder():
    held_back = dataclasses.replace(JOINT, state_scale=(0.0, 0.0, 1.0), teacher=2)
    assert find_problem(_make_member(Phase((JOINT, held_back))), 3) is None
