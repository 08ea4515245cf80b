"""Runs a model over rows once and stores the outputs of all exits in a logit bank."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int, PRNGKeyArray

from sweet_jax.arrays import Array, Batch, LogitBank, Params
from sweet_jax.data.batches import BatchPlan, make_batch, plan_evaluation
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.devices import Programs, make_mesh, replicate, shape_of, shard_batch


class Collector:
    """Runs a model over rows; keeps compiled programs for the next call.

    Attributes:
        programs: one per batch shape, with compile seconds and FLOPs.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_size: int,
        buckets: tuple[int, ...],
        pad_id: int,
        dropout_rng: PRNGKeyArray | None = None,
    ) -> None:
        """Sets up the jitted function; nothing is compiled yet.

        Args:
            model: anything that returns a tuple of ExitOutput for a batch.
            batch_size: rows per batch; the results do not depend on it.
            buckets: lengths that batches are padded to.
            pad_id: token id of padding.
            dropout_rng: turns dropout on, with this key; the outputs then depend on the
                batch size. None: no dropout.
        """
        self._batch_size, self._buckets, self._pad_id = batch_size, buckets, pad_id
        self._mesh = make_mesh(batch_size)
        self._rng = None
        if dropout_rng is not None:
            self._rng = replicate(dropout_rng, self._mesh)

        def compute_outputs(
            params: Params, batch: Batch, rng: PRNGKeyArray | None
        ) -> dict[str, Array | None]:
            rngs = {}
            if rng is not None:  # The first row identifies the batch.
                rngs["dropout"] = jax.random.fold_in(rng, batch.row_ids[0])
            outputs: Any = model.apply({"params": params}, batch, bool(rngs), rngs=rngs)
            has_lte = outputs[0].lte_B is not None
            return {
                "logits_BEC": jax.numpy.stack([o.logits_BC for o in outputs], 1),
                "lte_BE": jax.numpy.stack([o.lte_B for o in outputs], 1)
                if has_lte
                else None,
            }

        # Replicated, so that every process can read all rows.
        replicated = NamedSharding(self._mesh, PartitionSpec())
        self.programs = Programs(jax.jit(compute_outputs, out_shardings=replicated))

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
        params = replicate(params, self._mesh)
        plans = plan_evaluation(rows.lengths, self._batch_size, self._buckets)
        by_length = {plan.length: plan for plan in plans}
        examples = [self._make_batch(rows, plan) for plan in by_length.values()]
        self.programs.compile_all(
            {shape_of(b): (params, b, self._rng) for b in examples}
        )
        pending: list[tuple[Int[np.ndarray, " B"], dict[str, Any]]] = []
        for plan in plans:
            batch = self._make_batch(rows, plan)
            program = self.programs.by_shape[shape_of(batch)]
            # Outputs are small: dispatch all batches, read the results at the end.
            pending.append((plan.rows, program.call(params, batch, self._rng)))
        logits = _scatter(rows.num_rows, [(r, o["logits_BEC"]) for r, o in pending])
        has_lte = pending[0][1]["lte_BE"] is not None
        return LogitBank(
            logits=logits,
            labels=rows.labels.astype(np.int32),
            weights=np.ones(rows.num_rows, np.float32),
            row_ids=rows.row_ids.astype(np.int64),
            part=np.zeros(rows.num_rows, np.int32) if part is None else part,
            lte=_scatter(rows.num_rows, [(r, o["lte_BE"]) for r, o in pending])
            if has_lte
            else None,
        )

    def _make_batch(self, rows: Tokenized, plan: BatchPlan) -> Batch:
        batch = make_batch(rows, plan, self._batch_size, self._pad_id)
        return shard_batch(batch, self._mesh)


def _scatter(
    num_rows: int, pieces: list[tuple[np.ndarray, Any]]
) -> Float[np.ndarray, "N ..."]:
    """Returns the rows of all pieces in input order, without padding rows."""
    first = np.asarray(pieces[0][1])
    # NaN marks a row that was in no batch; the check below raises for it.
    out = np.full((num_rows, *first.shape[1:]), np.nan, np.float32)
    seen = np.zeros(num_rows, bool)
    for indices, values in pieces:
        out[indices] = np.asarray(values)[: len(indices)]
        seen[indices] = True
    assert seen.all(), "an evaluation row was dropped"
    return out
