"""The logit banks of a run: collected once from its parameters, then read back."""

from collections.abc import Collection
from pathlib import Path

import jax

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.devices import is_first_host
from sweet_jax.evaluation.collect import Collector
from sweet_jax.models.multi_exit import join_models
from sweet_jax.runs.inputs import Prepared

CALIBRATION = "calibration"
# The bank on which temperatures are fitted under faithful_release.
DROPOUT_CALIBRATION = "calibration_dropout"
# Folded into the seed's key, for dropout in that calibration; fresh weights, training
# and analysis use streams 0 to 2.
_CALIBRATION_STREAM = 3


class LogitBanks:
    """The banks of calibration, test and further test sets.

    Attributes:
        names: names of the banks.
        files: their file names in the work directory, in the same order.
        collector: makes all banks except the one with dropout.
    """

    def __init__(self, prepared: Prepared, workdir: Path, digest: str) -> None:
        """Stores the arguments; nothing is read or collected yet.

        Args:
            prepared: the inputs of the run.
            workdir: directory of the banks.
            digest: digest of the training, stored in each bank.
        """
        self._prepared, self._workdir, self._digest = prepared, workdir, digest
        self.names = [name for name in prepared.rows if name != "train"]
        if prepared.settings.faithful_release:
            self.names.append(DROPOUT_CALIBRATION)
        self.files = tuple(f"logits_{name}.npz" for name in self.names)
        self.collector = self._make_collector(prepared.settings.evaluate.batch_size)

    def read(self, intact: Collection[str]) -> dict[str, LogitBank] | None:
        """Returns the stored banks; None if one of them must be collected again.

        Args:
            intact: files of the run that are unchanged since they were written.
        """
        if not set(self.files) <= set(intact):
            return None
        return {
            name: LogitBank.load(self._workdir / file)
            for name, file in zip(self.names, self.files, strict=True)
        }

    def collect(self, params: Params) -> dict[str, LogitBank]:
        """Collects the banks from the parameters; process 0 writes them."""
        return {
            name: self._collect(name, file, params)
            for name, file in zip(self.names, self.files, strict=True)
        }

    def _collect(self, name: str, file: str, params: Params) -> LogitBank:
        prepared, collector = self._prepared, self.collector
        if name == DROPOUT_CALIBRATION:
            # The released code calibrates with dropout on, because the submodules stay
            # in training mode. The training batch size is used, so that the outputs
            # depend on no other setting.
            key = jax.random.key(prepared.settings.seed)
            collector = self._make_collector(
                prepared.settings.train.batch_size,
                jax.random.fold_in(key, _CALIBRATION_STREAM),
            )
        is_calibration = name in (CALIBRATION, DROPOUT_CALIBRATION)
        bank = collector.collect(
            params,
            prepared.rows[CALIBRATION if is_calibration else name],
            prepared.splits.part if is_calibration else None,
        )
        if is_first_host():
            bank.save(self._workdir / file, self._digest)
        return bank

    def _make_collector(
        self, batch_size: int, dropout_rng: jax.Array | None = None
    ) -> Collector:
        prepared = self._prepared
        return Collector(
            join_models(prepared.models),
            batch_size,
            prepared.buckets,
            prepared.pad_id,
            dropout_rng,
        )
