"""The training plan of one member: its phases, steps and batches.

Every choice is a pure function of the seed and the step, so a training that was stopped
after any step resumes bit for bit, and an analysis can make the same batches.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from jax.sharding import Mesh

from sweet_jax.arrays import Batch
from sweet_jax.data.batches import BatchPlan, make_batch, plan_epoch
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.devices import make_mesh, shard_batch
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment
from sweet_jax.settings.fields import Settings
from sweet_jax.training.losses import compute_class_weights
from sweet_jax.training.objectives import Member, Objective, Phase


@dataclasses.dataclass(frozen=True)
class TrainData:
    """Training rows and how they are batched.

    Attributes:
        rows: tokenised rows.
        buckets: lengths that batches are padded to.
        pad_id: token id of padding.
    """

    rows: Tokenized
    buckets: tuple[int, ...]
    pad_id: int


class PhaseSpan(NamedTuple):
    """A phase and its steps, counted from 0 over all phases of the member.

    Attributes:
        phase: the phase.
        first: its first step.
        stop: the step after its last step.
    """

    phase: Phase
    first: int
    stop: int

    def find_objective(self, step: int) -> Objective:
        """Returns the objective of the member's step `step`, counted from 0."""
        return self.phase.choose_objective(step - self.first, self.stop - self.first)


@dataclasses.dataclass(frozen=True, eq=False)
class MemberTraining:
    """A member with everything its training depends on, except initial parameters.

    Attributes:
        model: a MultiExitClassifier.
        member: its name, its exits and its phases.
        data: training rows.
        settings: settings of the run, with exit layers filled in.
    """

    model: MultiExitClassifier
    member: Member
    data: TrainData
    settings: Settings

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps per epoch."""
        return math.ceil(self.data.rows.num_rows / self.settings.train.batch_size)

    @functools.cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weight of each class in the loss; None: 1 for all."""
        if self.settings.train.class_weights == "none":
            return None
        return compute_class_weights(self.data.rows.labels, self.model.num_classes)

    @functools.cached_property
    def spans(self) -> tuple[PhaseSpan, ...]:
        """The phases in order, with their steps."""
        num_steps = self.steps_per_epoch * self.settings.train.num_epochs
        return plan_phases(self.member.phases, num_steps)

    @property
    def num_steps(self) -> int:
        """The number of steps over all phases."""
        return self.spans[-1].stop

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices over which the rows of a batch are sharded."""
        train = self.settings.train
        return make_mesh(train.batch_size // train.accumulate_steps)

    def find_segment(self, path: str) -> int:
        """Returns the run's segment that owns a parameter, for clipping."""
        return find_segment(path, self.settings.exits.layers)

    def plan_epoch(self, epoch: int) -> list[BatchPlan]:
        """Returns the batches of an epoch, counted from 0, in their order.

        Those of contrastive epochs hold pairs of rows of a class: with many classes
        there would be few at random.
        """
        contrasts = epoch < self.settings.train.contrastive_epochs
        return plan_epoch(
            self.data.rows.lengths,
            self.settings.train.batch_size,
            self.data.buckets,
            self.settings.seed,
            epoch,
            self.data.rows.labels if contrasts else None,
        )

    def iterate_plans(self, start: int, stop: int) -> Iterator[BatchPlan]:
        """Yields the batch plans of steps start..stop-1."""
        for epoch in itertools.count(start // self.steps_per_epoch):
            first = epoch * self.steps_per_epoch
            if first >= stop:
                return
            yield from self.plan_epoch(epoch)[max(start - first, 0) : stop - first]

    def make_batch(self, plan: BatchPlan) -> Batch:
        """Returns the batch of a plan, on the host."""
        size = self.settings.train.batch_size
        return make_batch(self.data.rows, plan, size, self.data.pad_id)

    def place_batch(self, batch: Batch) -> Batch:
        """Returns a batch with its rows sharded over the mesh."""
        return shard_batch(batch, self.mesh)


def plan_phases(phases: tuple[Phase, ...], num_steps: int) -> tuple[PhaseSpan, ...]:
    """Returns the steps of every phase.

    Args:
        phases: phases of a member.
        num_steps: steps of train.num_epochs; phases give their length in percent of it.
    """
    ends = [
        round(num_steps * share / 100)
        for share in itertools.accumulate(phase.steps_percent for phase in phases)
    ]
    return tuple(map(PhaseSpan, phases, [0, *ends[:-1]], ends))
