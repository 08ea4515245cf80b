"""The description of a method: members, their phases, and the objective of each step.

All of it is static, so that every objective compiles once per batch length. The
training loop needs nothing else from a method.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss that a step minimises, and how gradients are scaled.

    Attributes:
        seam_scale: share of the gradient that crosses seam i; E-1 numbers.
        exit_scale: weight of exit i's loss in the sum; an exit with 0 has no backward
            pass.
        state_scale: share of exit i's gradient that flows into the encoder; the exit's
            own parameters get the whole gradient. E numbers; None: 1 everywhere. All 0:
            no backward pass through the encoder.
        teacher: the exit whose soft predictions replace the labels for the other exits,
            by its position in the member; None: all exits learn from the labels.
        is_contrastive: whether each exit's loss is contrastive (`contrastive.py`)
            instead of a cross-entropy.
    """

    seam_scale: tuple[float, ...]
    exit_scale: tuple[float, ...]
    state_scale: tuple[float, ...] | None = None
    teacher: int | None = None
    is_contrastive: bool = False


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of training with one optimiser and one learning-rate schedule.

    Several objectives share the optimiser's moments and the schedule. The next phase
    has a new optimiser and starts from the parameters only.

    Attributes:
        objectives: the objectives of its steps.
        takes_turns: True: the objectives alternate step by step; False: the phase is
            divided into equal parts, one per objective, in order.
        trainable: regexes of the trainable parameter paths.
        steps_percent: its length, in percent of the steps of train.num_epochs.
        encoder_learning_rate: the encoder's peak learning rate; None:
            optim.encoder_learning_rate.
        starts_exits: whether exits start anew from the encoder as it then is, if they
            start as probes; before the first phase they always do.
    """

    objectives: tuple[Objective, ...]
    takes_turns: bool = False
    trainable: tuple[str, ...] = (".*",)
    steps_percent: float = 100.0
    encoder_learning_rate: float | None = None
    starts_exits: bool = False

    @property
    def is_contrastive(self) -> bool:
        """Whether its objectives are contrastive."""
        return any(objective.is_contrastive for objective in self.objectives)

    def choose_objective(self, step: int, num_steps: int) -> Objective:
        """Returns the objective of a step, counted from 0 of the phase's `num_steps`.

        It depends on the step only, so a resumed run equals an uninterrupted one.
        """
        count = len(self.objectives)
        index = step % count if self.takes_turns else step * count // num_steps
        return self.objectives[index]


@dataclasses.dataclass(frozen=True)
class Member:
    """A model that is trained separately.

    Attributes:
        name: `member_0`, ... or "" if the method has a single model.
        exits: numbers of the run's exits that it has.
        phases: its phases, in order.
    """

    name: str
    exits: tuple[int, ...]
    phases: tuple[Phase, ...]


def find_problem(members: Any, num_exits: int) -> str | None:
    """Returns why a method's members cannot be trained, or None if they can.

    Methods of other packages may return anything; this is checked before training.
    """
    if not isinstance(members, tuple | list) or not all(
        isinstance(member, Member) for member in members
    ):
        return f"it returns {members!r:.80}, expected a tuple of Members"
    found = [(member.name, tuple(member.exits)) for member in members]
    one = [("", tuple(range(num_exits)))]
    one_each = [(f"member_{i}", (i,)) for i in range(num_exits)]
    if found not in (one, one_each):
        return (
            f"its members (name, exits) are {found}; allowed are {one}, or {one_each}"
        )
    for member in members:
        if not isinstance(member.phases, tuple) or not member.phases:
            return f"phases={member.phases!r:.80}, expected a tuple of one or more"
        for number, phase in enumerate(member.phases):
            for problem in _find_phase_problems(phase, len(member.exits)):
                return f"phase {number}: {problem}"
    return None


def _find_phase_problems(phase: Phase, num_exits: int) -> Iterator[str]:
    if not isinstance(phase.objectives, tuple) or not phase.objectives:
        yield f"objectives={phase.objectives!r:.80}, expected a tuple of one or more"
        return
    if not 0 < phase.steps_percent < math.inf:
        yield f"steps_percent={phase.steps_percent}, allowed is a number above 0"
    if not isinstance(phase.trainable, tuple):
        yield f"trainable={phase.trainable!r}, expected a tuple of regexes"
        return
    for pattern in phase.trainable:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            yield f"trainable has {pattern!r}, which is not a regex ({error})"
    for objective in phase.objectives:
        yield from _find_objective_problems(objective, num_exits)


def _find_objective_problems(objective: Objective, num_exits: int) -> Iterator[str]:
    for name, scales, count in (
        ("seam_scale", objective.seam_scale, num_exits - 1),
        ("exit_scale", objective.exit_scale, num_exits),
        ("state_scale", objective.state_scale, num_exits),
    ):
        if scales is None and name == "state_scale":
            continue
        if not isinstance(scales, tuple) or len(scales) != count:
            yield f"{name}={scales!r}, expected a tuple of {count} numbers"
        elif not all(isinstance(s, int | float) and 0 <= s < math.inf for s in scales):
            yield f"{name}={scales}, allowed are finite numbers of 0 or more"
        elif name == "exit_scale" and not any(scales):
            yield f"exit_scale={scales} is 0 everywhere: no exit learns"
    if objective.teacher is not None and objective.teacher not in range(num_exits):
        yield f"teacher={objective.teacher}, allowed is 0 to {num_exits - 1}"
