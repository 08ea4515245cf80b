"""Runs a model over rows once and stores the outputs of all exits in a logit bank."""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int, PRNGKeyArray

from sweet_jax.arrays import Array, Batch, LogitBank, Params
from sweet_jax.data.batches import BatchPlan, make_batch, plan_evaluation
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.devices import Programs, make_mesh, replicate, shape_of, shard_batch

# Maps parameters, a batch and a key (or None) to arrays by name, one row per input row.
ComputeFn: TypeAlias = Callable[[Params, Batch, PRNGKeyArray | None], dict[str, Array]]

# Batches whose outputs are on the device at the same time: enough that it never waits.
_MOST_PENDING = 16


class RowPass:
    """Runs a function over rows in batches; keeps compiled programs for the next call.

    Attributes:
        programs: one per batch shape, with compile seconds and FLOPs.
        flops: of all runs so far, by XLA's analysis.
    """

    def __init__(
        self,
        compute_fn: ComputeFn,
        batch_size: int,
        buckets: tuple[int, ...],
        pad_id: int,
        rng: PRNGKeyArray | None = None,
    ) -> None:
        """Sets up the jitted function; nothing is compiled yet.

        Args:
            compute_fn: the function.
            batch_size: rows per batch.
            buckets: lengths that batches are padded to.
            pad_id: token id of padding.
            rng: passed to the function with every batch.
        """
        self._batch_size, self._buckets, self._pad_id = batch_size, buckets, pad_id
        self._mesh = make_mesh(batch_size)
        self._rng = None if rng is None else replicate(rng, self._mesh)
        # Replicated, so that every process can read all rows.
        replicated = NamedSharding(self._mesh, PartitionSpec())
        self.programs = Programs(jax.jit(compute_fn, out_shardings=replicated))
        self.flops = 0.0

    def run(
        self, params: Params, rows: Tokenized
    ) -> dict[str, Float[np.ndarray, "N ..."]]:
        """Returns the float32 outputs of all rows, in their order.

        Args:
            params: parameters; they are not donated and can be used again.
            rows: tokenised rows.
        """
        params = replicate(params, self._mesh)
        plans = plan_evaluation(rows.lengths, self._batch_size, self._buckets)
        by_length = {plan.length: plan for plan in plans}
        examples = [self._make_batch(rows, plan) for plan in by_length.values()]
        self.programs.compile_all(
            {shape_of(b): (params, b, self._rng) for b in examples}
        )
        outputs: dict[str, np.ndarray] = {}
        seen_N = np.zeros(rows.num_rows, bool)
        pending: deque[tuple[BatchPlan, dict[str, Any]]] = deque()

        def take_oldest() -> None:
            plan, values = pending.popleft()
            seen_N[plan.rows] = True
            for name, value in values.items():
                value = np.asarray(value)[: len(plan.rows)]  # Without padding rows.
                if name not in outputs:
                    shape = (rows.num_rows, *value.shape[1:])
                    outputs[name] = np.empty(shape, np.float32)
                outputs[name][plan.rows] = value

        for plan in plans:
            batch = self._make_batch(rows, plan)
            program = self.programs.by_shape[shape_of(batch)]
            self.flops += program.flops
            pending.append((plan, program.call(params, batch, self._rng)))
            if len(pending) > _MOST_PENDING:
                take_oldest()
        while pending:
            take_oldest()
        assert seen_N.all(), "an evaluation row was dropped"
        return outputs

    def _make_batch(self, rows: Tokenized, plan: BatchPlan) -> Batch:
        batch = make_batch(rows, plan, self._batch_size, self._pad_id)
        return shard_batch(batch, self._mesh)


class Collector:
    """Collects logit banks; keeps compiled programs for the next one."""

    def __init__(
        self,
        model: nn.Module,
        batch_size: int,
        buckets: tuple[int, ...],
        pad_id: int,
        dropout_rng: PRNGKeyArray | None = None,
    ) -> None:
        """Sets up the pass over rows; nothing is compiled yet.

        Args:
            model: anything that returns a tuple of ExitOutput for a batch.
            batch_size: rows per batch; the results do not depend on it.
            buckets: lengths that batches are padded to.
            pad_id: token id of padding.
            dropout_rng: turns dropout on, with this key; the outputs then depend on the
                batch size. None: no dropout.
        """

        def compute_outputs(
            params: Params, batch: Batch, rng: PRNGKeyArray | None
        ) -> dict[str, Array]:
            rngs = {}
            if rng is not None:  # The first row identifies the batch.
                rngs["dropout"] = jax.random.fold_in(rng, batch.row_ids[0])
            exits: Any = model.apply({"params": params}, batch, bool(rngs), rngs=rngs)
            outputs: dict[str, Array] = {
                "logits_BEC": jax.numpy.stack([o.logits_BC for o in exits], 1)
            }
            if exits[0].lte_B is not None:
                outputs["lte_BE"] = jax.numpy.stack([o.lte_B for o in exits], 1)
            return outputs

        self._rows = RowPass(compute_outputs, batch_size, buckets, pad_id, dropout_rng)

    @property
    def programs(self) -> Programs:
        """The programs, one per batch shape, with compile seconds and FLOPs."""
        return self._rows.programs

    def collect(
        self,
        params: Params,
        rows: Tokenized,
        part: Int[np.ndarray, " N"] | None = None,
    ) -> LogitBank:
        """Returns the logit bank of all rows, in their order.

        Args:
            params: parameters; they are not donated and can be used again.
            rows: tokenised rows.
            part: calibration part per row; None: zeros.
        """
        outputs = self._rows.run(params, rows)
        return LogitBank(
            logits=outputs["logits_BEC"],
            labels=rows.labels.astype(np.int32),
            weights=np.ones(rows.num_rows, np.float32),
            row_ids=rows.row_ids.astype(np.int64),
            part=np.zeros(rows.num_rows, np.int32) if part is None else part,
            lte=outputs.get("lte_BE"),
        )
