"""Measuring gradient conflict of one run: at which steps, on which batches."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from sweet_jax.analysis.conflict_file import ConflictFile, make_header
from sweet_jax.analysis.gradient_conflict import (
    collect_products,
    make_add_batch,
    make_zero_sums,
    summarize,
)
from sweet_jax.analysis.parameter_groups import make_groups, make_parts
from sweet_jax.arrays import Batch, Params
from sweet_jax.data.batches import BatchPlan, make_batch, plan_epoch
from sweet_jax.devices import (
    Programs,
    is_first_host,
    make_mesh,
    replicate,
    shape_of,
    shard_batch,
)
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.settings.fields import Settings
from sweet_jax.training.loop import TrainData, count_steps, plan_phases
from sweet_jax.training.objectives import Member, Objective
from sweet_jax.trees import flatten_paths

# Folded into the seed's key, so that measuring shares no key with training.
_ANALYSIS_STREAM = 2


class ConflictProbes:
    """What the training loop calls at the chosen steps, and the file it fills.

    Every step is measured on the same batches with the same dropout masks, so that
    steps differ by their parameters alone: the first batches of the epoch behind the
    last, which are made as those of training and trained on by none.

    Attributes:
        num_steps: of the training, over all phases.
    """

    def __init__(
        self,
        model: MultiExitClassifier,
        member: Member,
        settings: Settings,
        data: TrainData,
        workdir: Path,
    ) -> None:
        """Takes up what an earlier process measured; nothing is compiled yet.

        Args:
            model: of the run's single member.
            member: with all exits.
            settings: of the run, exits filled in.
            data: training rows.
            workdir: where gradient_conflict.json lies.

        Raises:
            WorkdirError: the file there is damaged, or was measured otherwise.
        """
        self._model, self._settings = model, settings
        per_epoch, num_steps = count_steps(data.rows.num_rows, settings)
        self._phases = plan_phases(member.phases, num_steps)
        self.num_steps = self._phases[-1][2]
        shapes = flatten_paths(compute_shapes(model))
        self._parts = make_parts(shapes, settings.exits.layers)
        self._groups = make_groups(self._parts)
        sizes = [
            sum(int(np.prod(shapes[path].shape)) for path in part.paths)
            for part in self._parts
        ]
        self._batches = _make_batches(
            data, settings, min(settings.analysis.num_batches, per_epoch)
        )
        header = make_header(
            settings.method_label,
            settings.seed,
            settings.exits.layers,
            self.num_steps,
            [batch.row_ids[batch.row_ids >= 0].tolist() for batch in self._batches],
            self._groups,
            [sum(sizes[i] for i in group.members) for group in self._groups],
        )
        self._file = ConflictFile(workdir, header, is_first_host())
        self._programs: dict[Objective, Programs] = {}

    @property
    def open_steps(self) -> frozenset[int]:
        """The wanted steps that are neither measured nor known to be missing."""
        wanted = {
            round(self.num_steps * percent / 100)
            for percent in self._settings.analysis.steps_percent
        }
        return frozenset(wanted - self._file.settled_steps)

    def make_probes(self) -> dict[int, Callable[[int, Params], None]]:
        """Returns, for each open step, what measures it."""
        return dict.fromkeys(self.open_steps, self._measure)

    def measure_trained(self, params: Params) -> None:
        """Measures the parameters of the last step, if that is open, and finishes.

        Args:
            params: on the host.
        """
        if self.num_steps in self.open_steps:
            self._measure(self.num_steps, replicate(params, self._make_mesh()))
        self.finish()

    def finish(self) -> None:
        """Says after training which steps had been passed before they were wanted."""
        if missing := sorted(self.open_steps):
            logging.info(
                "gradient conflict cannot be measured at steps %s: training had passed"
                " them",
                ", ".join(map(str, missing)),
            )
        self._file.add_missing(self.open_steps)

    def _measure(self, step: int, params: Params) -> None:
        """Measures the parameters after a step, on the training mesh."""
        start = time.perf_counter()
        mesh = self._make_mesh()
        # What the next step minimises; after the last one, what that did.
        at = min(step, self.num_steps - 1)
        phase, first, stop = next(p for p in self._phases if at < p[2])
        objective = phase.choose_objective(at - first, stop - first)
        num_exits = len(objective.exit_scale)
        sums = replicate(
            make_zero_sums(params, self._parts, num_exits, phase.trainable), mesh
        )
        batches = [
            (shard_batch(batch, mesh), replicate(self._make_key(i), mesh))
            for i, batch in enumerate(self._batches)
        ]
        if objective not in self._programs:
            add_batch = make_add_batch(self._model, objective, self._parts)
            everywhere = NamedSharding(mesh, PartitionSpec())
            # The sums are donated: the next ones lie where they lay.
            jitted = jax.jit(add_batch, donate_argnums=0, out_shardings=everywhere)
            self._programs[objective] = Programs(jitted)
        program = self._programs[objective].compile(
            shape_of(self._batches[0]), sums, params, *batches[0]
        )
        products = collect_products(program.call, sums, params, batches, self._parts)
        self._file.add(step, [summarize(products, group) for group in self._groups])
        logging.info(
            "gradient conflict at step %d: %d batches of %.3g GFLOP, %.1f s",
            step,
            len(batches),
            program.flops / 1e9,
            time.perf_counter() - start,
        )

    def _make_mesh(self) -> Mesh:
        """Returns the mesh that training has."""
        train = self._settings.train
        return make_mesh(train.batch_size // train.accumulate_steps)

    def _make_key(self, i: int) -> PRNGKeyArray:
        """Returns the dropout key of batch i, whatever the step."""
        key = jax.random.fold_in(jax.random.key(self._settings.seed), _ANALYSIS_STREAM)
        return jax.random.fold_in(key, i)


def _make_batches(data: TrainData, settings: Settings, count: int) -> list[Batch]:
    """Returns the batches, all padded to the longest's length: one program for all."""
    size = settings.train.batch_size
    plans = plan_epoch(
        data.rows.lengths,
        size,
        data.buckets,
        settings.seed,
        epoch=settings.train.num_epochs,
    )[:count]
    length = max(plan.length for plan in plans)
    return [
        make_batch(data.rows, BatchPlan(length, plan.rows), size, data.pad_id)
        for plan in plans
    ]
