"""Measures the gradient conflict of a run: chooses its steps and batches."""

import logging
import time
from typing import ClassVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from sweet_jax.analysis import conflict_file
from sweet_jax.analysis.analysis import Analysis, AnalysisInputs
from sweet_jax.analysis.conflict_file import ConflictFile, make_header
from sweet_jax.analysis.gradient_conflict import (
    collect_products,
    make_add_batch,
    make_zero_sums,
    summarize,
)
from sweet_jax.analysis.parameter_groups import make_groups, make_parts
from sweet_jax.arrays import Batch, Params
from sweet_jax.data.batches import BatchPlan
from sweet_jax.devices import Programs, replicate, shape_of
from sweet_jax.models.init import compute_shapes
from sweet_jax.settings.rules import SettingsError
from sweet_jax.training.member_training import MemberTraining
from sweet_jax.training.objectives import Objective
from sweet_jax.trees import flatten_paths

logger = logging.getLogger(__name__)

# Folded into the seed's key, so that analysis and training use different keys.
_ANALYSIS_STREAM = 2


class GradientConflict(Analysis):
    """The analysis `gradient_conflict`: chooses steps and batches, writes the file.

    All steps are measured on the same batches with the same dropout masks, so that they
    differ only in their parameters. The batches are the first ones of the epoch after
    the last: made like training batches, but never used in training.
    """

    files: ClassVar[tuple[str, ...]] = (conflict_file.FILE_NAME,)

    def __init__(self, inputs: AnalysisInputs) -> None:
        """Reads the measurements of earlier processes; nothing is compiled yet.

        Raises:
            FileError: the file is damaged.
            SettingsError: the run's models share no weights, or the file was measured
                with other settings.
        """
        settings = self._settings = inputs.settings
        self._training, *others = inputs.trainings
        if others:
            raise SettingsError(
                f"analysis gradient_conflict: the models of method={settings.method}"
                " share no weights; drop it, or set method=early_exit"
            )
        shapes = flatten_paths(compute_shapes(self._training.model))
        self._parts = make_parts(shapes, settings.exits.layers)
        self._groups = make_groups(self._parts)
        sizes = [
            sum(int(np.prod(shapes[path].shape)) for path in part.paths)
            for part in self._parts
        ]
        self._batches = _make_batches(self._training)
        header = make_header(
            settings.method_label,
            settings.seed,
            settings.exits.layers,
            self._training.num_steps,
            [batch.row_ids[batch.row_ids >= 0].tolist() for batch in self._batches],
            self._groups,
            [sum(sizes[i] for i in group.members) for group in self._groups],
        )
        self._file = ConflictFile(inputs.workdir, header, inputs.writes)
        self._programs: dict[Objective, Programs] = {}

    def find_open_steps(self, member: str = "") -> frozenset[int]:
        """Returns the requested steps that are neither measured nor missing."""
        num_steps = self._training.num_steps
        wanted = {
            round(num_steps * percent / 100)
            for percent in self._settings.analysis.steps_percent
        }
        return frozenset(wanted - self._file.settled_steps)

    def finish(self) -> None:
        """Logs and records requested steps that training had already passed."""
        if missing := sorted(self.find_open_steps()):
            logger.info(
                "gradient conflict cannot be measured at steps %s: training had passed"
                " them",
                ", ".join(map(str, missing)),
            )
        self._file.add_missing(missing)

    def measure(self, member: str, step: int, params: Params) -> None:
        """Measures the parameters after a step, on the training mesh."""
        start = time.perf_counter()
        mesh = self._training.mesh
        # The objective of the next step; after the last step, that of the last step.
        at = min(step, self._training.num_steps - 1)
        span = next(span for span in self._training.spans if at < span.stop)
        objective = span.find_objective(at)
        num_exits = len(objective.exit_scale)
        sums = replicate(
            make_zero_sums(params, self._parts, num_exits, span.phase.trainable), mesh
        )
        batches = [
            (
                self._training.place_batch(batch),
                replicate(self._make_key(i), mesh),
            )
            for i, batch in enumerate(self._batches)
        ]
        if objective not in self._programs:
            training = self._training
            add_batch = make_add_batch(
                training.model, objective, self._parts, training.class_weights
            )
            everywhere = NamedSharding(mesh, PartitionSpec())
            # The sums are donated: the next ones reuse their memory.
            jitted = jax.jit(add_batch, donate_argnums=0, out_shardings=everywhere)
            self._programs[objective] = Programs(jitted)
        program = self._programs[objective].compile(
            shape_of(self._batches[0]), sums, params, *batches[0]
        )
        products = collect_products(program.call, sums, params, batches, self._parts)
        self._file.add(step, [summarize(products, group) for group in self._groups])
        logger.info(
            "gradient conflict at step %d: %d batches of %.3g GFLOP, %.1f s",
            step,
            len(batches),
            program.flops / 1e9,
            time.perf_counter() - start,
        )

    def _make_key(self, i: int) -> PRNGKeyArray:
        """Returns the dropout key of batch i, the same for all steps."""
        key = jax.random.fold_in(jax.random.key(self._settings.seed), _ANALYSIS_STREAM)
        return jax.random.fold_in(key, i)


def _make_batches(training: MemberTraining) -> list[Batch]:
    """Returns batches of equal length, so that one program serves all of them."""
    settings = training.settings
    plans = training.plan_epoch(settings.train.num_epochs)
    plans = plans[: settings.analysis.num_batches]
    length = max(plan.length for plan in plans)
    return [training.make_batch(BatchPlan(length, plan.rows)) for plan in plans]
