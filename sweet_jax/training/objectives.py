"""What a method says: members, their phases, and the objective of each step.

All of it is static, so that every objective compiles once per batch length. The
training loop knows nothing else of a method.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step minimises, and how far the gradient of each exit reaches.

    Attributes:
        seam_scale: share of the gradient that crosses seam i; E-1 numbers.
        exit_scale: weight of exit i's loss in the sum; an exit with 0 has no backward
            pass.
        state_scale: share of exit i's gradient that reaches the states the exit reads,
            and with them the encoder; the exit's own parameters get all of it. E
            numbers; None: 1 everywhere. All 0: no backward pass through the encoder.
        teacher: the exit whose soft answers the others learn instead of the labels, by
            its position in the member; None: all learn the labels.
    """

    seam_scale: tuple[float, ...]
    exit_scale: tuple[float, ...]
    state_scale: tuple[float, ...] | None = None
    teacher: int | None = None


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimiser and one learning-rate schedule.

    Where it has several objectives the optimiser's moments and the schedule go on from
    one to the next. The next phase starts afresh, from the parameters alone.

    Attributes:
        objectives: of its steps.
        takes_turns: the objectives follow each other step by step, over and over;
            otherwise each has one of as many equal parts of the phase, in order.
        trainable: regexes of the parameter paths that learn.
        steps_percent: its length, in percent of the steps of train.num_epochs.
    """

    objectives: tuple[Objective, ...]
    takes_turns: bool = False
    trainable: tuple[str, ...] = (".*",)
    steps_percent: float = 100.0

    def choose_objective(self, step: int, num_steps: int) -> Objective:
        """Returns the objective of a step, counted from 0 of the phase's `num_steps`.

        A function of the step alone, so that a resumed run goes on as it would have.
        """
        count = len(self.objectives)
        index = step % count if self.takes_turns else step * count // num_steps
        return self.objectives[index]


@dataclasses.dataclass(frozen=True)
class Member:
    """A model that is trained on its own.

    Attributes:
        name: `member_0`, ... or "" where the method has a single model.
        exits: numbers of the run's exits it owns.
        phases: in order.
    """

    name: str
    exits: tuple[int, ...]
    phases: tuple[Phase, ...]
