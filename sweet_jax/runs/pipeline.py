"""The pipeline in order, resumable at each arrow.

prepare -> train -> logit banks -> calibrate and evaluate -> model folder -> report
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float32
from safetensors.numpy import load_file

from sweet_jax import report
from sweet_jax.analysis.conflict_measurements import ConflictProbes
from sweet_jax.arrays import LogitBank, Params, save_npz
from sweet_jax.devices import configure_jax, is_first_host, wait_for_hosts
from sweet_jax.engine.costs import SegmentCosts, measure_costs
from sweet_jax.engine.segments import Segments
from sweet_jax.evaluation.banks import CascadeSpec, Evaluation, evaluate_banks
from sweet_jax.evaluation.collect import Collector
from sweet_jax.evaluation.metrics import score_predictions
from sweet_jax.exits.learned import fit_lte_ranges
from sweet_jax.exits.temperatures import (
    RELEASED_RANGE,
    TEMPERATURE_RANGE,
    fit_temperatures,
)
from sweet_jax.models.init import init_params
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment, join_models
from sweet_jax.runs.inputs import Prepared, prepare
from sweet_jax.runs.results import describe_model, make_results
from sweet_jax.runs.workdir import (
    CURVES,
    METRICS,
    MODEL,
    PARAMS,
    RESULTS,
    Workdir,
    default_workdir,
)
from sweet_jax.serving.model_folder import save_model_folder, update_description
from sweet_jax.settings.fields import Settings, SettingsError
from sweet_jax.system import checksums
from sweet_jax.system.files import write_json
from sweet_jax.training.checkpoint import Checkpoints
from sweet_jax.training.loop import TrainData, train_member
from sweet_jax.training.methods import Member
from sweet_jax.training.selection import BestEpoch
from sweet_jax.trees import unflatten_paths

# Folded into the seed's key, so that fresh weights share no key with dropout.
_WEIGHTS_STREAM = 0
# Of the dropout of calibration under faithful_release; training and analysis have the
# streams between.
_CALIBRATION_STREAM = 3
# The bank of that calibration, and those that no score is reported of.
_FIT = "calibration_dropout"
_CALIBRATION = ("calibration", _FIT)
# Of the test rows, those with most batches: each is compiled for every segment.
_MOST_LENGTHS = 3


def run(
    settings: Settings, workdir: Path | None = None, quiet: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Runs the whole pipeline, or what of it is not yet done in the work directory.

    Args:
        settings: of the run.
        workdir: None: `default_workdir`.
        quiet: no progress.

    Returns:
        The work directory and what its results.json holds.

    Raises:
        ValueError: an input is wrong, or the work directory is another run's.
        Interrupted: SIGTERM came in training; the same call goes on. In a command
            other signals, at any moment, raise its base `stopping.Stopped`.
    """
    configure_jax(settings.encoder.matmul_precision)
    start = time.perf_counter()
    prepared = prepare(settings)
    settings = prepared.settings
    work = Workdir(
        workdir or default_workdir(settings), settings, prepared.inputs, is_first_host()
    )
    try:
        load_seconds = time.perf_counter() - start
        pipeline = _Pipeline(prepared, work, quiet, load_seconds)
        results, lacks_probes = pipeline.read_results(), pipeline.lacks_probes
        has_page = (work.path / report.PAGE).exists()
        wait_for_hosts("all know whether the run is finished")
        if results is not None and has_page and not lacks_probes:
            logging.info("%s is finished: nothing to do", work.path)
            return work.path, results
        work.require_writing()
        if results is None:
            pipeline.run()
        elif lacks_probes:
            pipeline.probe_trained()
        if is_first_host():
            report.write_report(work.path)
        wait_for_hosts("the results are written")
        results = work.read_results()
        assert results is not None
        return work.path, results
    finally:
        work.close()


class _Pipeline:
    """The stages of one run; each finds what an earlier process left of it."""

    def __init__(
        self, prepared: Prepared, work: Workdir, quiet: bool, load_seconds: float
    ) -> None:
        self._prepared, self._work, self._quiet = prepared, work, quiet
        self._settings = prepared.settings
        self._load_seconds = load_seconds
        self._collector = Collector(
            join_models(prepared.models),
            self._settings.evaluate.batch_size,
            prepared.buckets,
            prepared.pad_id,
        )
        self._data = TrainData(
            prepared.rows["train"], prepared.buckets, prepared.pad_id
        )
        self._probes = None
        if self._settings.analysis.gradient_conflict:
            (member,), (model,) = prepared.members, prepared.models
            self._probes = ConflictProbes(
                model, member, self._settings, self._data, work.path
            )
        self._bank_names = [name for name in prepared.rows if name != "train"]
        if self._settings.faithful_release:
            self._bank_names.append(_FIT)
        self._outputs = (METRICS, *map(_bank_file, self._bank_names), MODEL, CURVES)
        # Asked once, before any host writes.
        self._intact = work.find_intact((*self._outputs, RESULTS))
        self._has_params = MODEL in self._intact or bool(
            checksums.find_intact(work.path, [PARAMS])
        )
        self._params: Params | None = None

    @property
    def lacks_probes(self) -> bool:
        """Whether something that is wanted of training has not been measured."""
        return self._probes is not None and bool(self._probes.open_steps)

    def read_results(self) -> dict[str, Any] | None:
        """Returns results.json if the run is finished and its files are whole."""
        if not self._intact.issuperset(self._outputs):
            return None
        return self._work.read_results()

    def probe_trained(self) -> None:
        """Measures what a training that is over has left: its last parameters.

        Raises:
            SettingsError: they are not those of the last step.
        """
        assert self._probes is not None
        if self._settings.train.select == "best":
            raise SettingsError(
                f"{self._work.path} is trained, and train.select=best keeps its best"
                " epoch, not its last step: set analysis.gradient_conflict=True from"
                " the start, in another --workdir"
            )
        self._probes.measure_trained(self._get_params())

    def run(self) -> None:
        """Runs the remaining stages; only the first host writes files."""
        if not (self._has_params and METRICS in self._intact):
            self._train()
        elif self.lacks_probes:
            self.probe_trained()
        start = time.perf_counter()
        banks = self._read_banks() or self._collect()
        if not is_first_host():
            return
        if self._settings.faithful_release:
            fit_rows, bounds = banks[_FIT], RELEASED_RANGE
        else:
            fit_rows = banks["calibration"].select_part(0)
            bounds = TEMPERATURE_RANGE
        temperatures = fit_temperatures(fit_rows, bounds)
        lte_ranges = fit_lte_ranges(fit_rows)
        evaluations = {
            name: self._evaluate(bank, banks["calibration"], temperatures, lte_ranges)
            for name, bank in banks.items()
            if name not in _CALIBRATION
        }
        seconds = time.perf_counter() - start - self._collector.programs.seconds
        results = make_results(
            prepared=self._prepared,
            work=self._work,
            evaluations=evaluations,
            collector=self._collector,
            load_seconds=self._load_seconds,
            evaluate_seconds=seconds,
            costs=self._measure_costs(),
        )
        self._save_model(
            evaluations["test"], banks["calibration"], temperatures, lte_ranges
        )
        save_npz(self._work.path / CURVES, evaluations["test"].arrays)
        # A page without its results, or of earlier ones, would stand for finished.
        (self._work.path / report.PAGE).unlink(missing_ok=True)
        write_json(self._work.path / RESULTS, results)
        self._work.record(*self._outputs, PARAMS, RESULTS)

    def _get_params(self) -> Params:
        """Returns the serving parameters, on the host."""
        if self._params is None:
            assert self._has_params
            self._params = unflatten_paths(load_file(self._work.path / PARAMS))
        return self._params

    def _train(self) -> None:
        """Trains every member, or restores it; what evaluation left is done again."""
        self._intact = frozenset()
        if is_first_host():
            self._work.forget_outputs()
            # Every checkpoint has its copy of it, and puts it back.
            (self._work.path / METRICS).unlink(missing_ok=True)
        trained = [
            self._train_one(member, model)
            for member, model in zip(
                self._prepared.members, self._prepared.models, strict=True
            )
        ]
        self._params = (
            trained[0]
            if len(trained) == 1
            else {f"member_{i}": params for i, params in enumerate(trained)}
        )

    def _train_one(self, member: Member, model: MultiExitClassifier) -> Params:
        prepared, settings = self._prepared, self._settings
        root = self._work.path / "checkpoints" / (member.name or "model")
        pooler = prepared.loaded.pooler
        initial = init_params(
            model,
            jax.random.fold_in(jax.random.key(settings.seed), _WEIGHTS_STREAM),
            keep_layers(prepared.loaded.encoder, model.exit_layers[-1] + 1),
            pooler if settings.exits.pooler_init == "checkpoint" else None,
            prepared.loaded.final_norm,
        )
        metrics = self._work.path / METRICS
        store = Checkpoints(root / "steps", self._work.training_digest, metrics)
        best = None
        if settings.train.select == "best":
            best = BestEpoch(store, self._make_selection_score(model), initial)
        params = train_member(
            model,
            member,
            initial,
            self._data,
            settings,
            find_segment=functools.partial(
                find_segment, exit_layers=settings.exits.layers
            ),
            store=best or store,
            metrics_path=metrics,
            on_epoch_end=None if best is None else best.offer,
            probes=None if self._probes is None else self._probes.make_probes(),
            quiet=self._quiet,
        )
        store.keep_newest(1)
        if self._probes is not None:
            self._probes.finish()
        return jax.device_get(params) if best is None else best.take()

    def _make_selection_score(
        self, model: MultiExitClassifier
    ) -> Callable[[Params], float]:
        """Returns parameters -> mean exit score on calibration part 0."""
        prepared = self._prepared
        collector = Collector(
            model,
            self._settings.evaluate.batch_size,
            prepared.buckets,
            prepared.pad_id,
        )
        part = prepared.splits.part

        def compute_selection_score(params: Params) -> float:
            bank = collector.collect(params, prepared.rows["calibration"], part)
            bank = bank.select_part(0)
            answers_NE = bank.logits.argmax(axis=2)
            metric = prepared.raw.task.metric
            return float(
                np.mean(
                    [
                        score_predictions(metric, bank.labels, answers_N)
                        for answers_N in answers_NE.T
                    ]
                )
            )

        return compute_selection_score

    def _read_banks(self) -> dict[str, LogitBank] | None:
        """Returns the stored banks; None where one of them is to be collected again."""
        paths = {name: _bank_file(name) for name in self._bank_names}
        if not self._intact.issuperset(paths.values()):
            return None
        return {n: LogitBank.load(self._work.path / p) for n, p in paths.items()}

    def _collect(self) -> dict[str, LogitBank]:
        banks = {}
        for name in self._bank_names:
            is_calibration = name in _CALIBRATION
            collector = self._make_fit_collector() if name == _FIT else self._collector
            banks[name] = collector.collect(
                self._get_params(),
                self._prepared.rows["calibration" if is_calibration else name],
                self._prepared.splits.part if is_calibration else None,
            )
            if is_first_host():
                path = self._work.path / _bank_file(name)
                banks[name].save(path, self._work.training_digest)
        return banks

    def _make_fit_collector(self) -> Collector:
        """Returns what runs the model as the released calibration does: dropout on.

        There, each part of the model is still in training right after it. The batches
        are those of training in size, so that the outputs depend on no other field.
        """
        rng = jax.random.key(self._settings.seed)
        return Collector(
            join_models(self._prepared.models),
            self._settings.train.batch_size,
            self._prepared.buckets,
            self._prepared.pad_id,
            jax.random.fold_in(rng, _CALIBRATION_STREAM),
        )

    def _evaluate(
        self,
        bank: LogitBank,
        calibration: LogitBank,
        temperatures: Float32[np.ndarray, " E"],
        lte_ranges: Float32[np.ndarray, "E 2"] | None,
    ) -> Evaluation:
        prepared = self._prepared
        return evaluate_banks(
            CascadeSpec.from_settings(self._settings, prepared.raw.task.metric),
            test=bank,
            calibration=calibration,
            temperatures=temperatures,
            train_label_counts_C=np.bincount(
                prepared.splits.train.labels, minlength=prepared.num_classes
            ),
            lte_ranges=lte_ranges,
        )

    def _measure_costs(self) -> SegmentCosts | None:
        """Returns what the segments take on test rows; None where it is not wanted."""
        prepared, settings = self._prepared, self._settings
        if not settings.evaluate.measure_costs:
            return None
        segments = Segments(
            join_models(prepared.models),
            self._get_params(),
            len(settings.exits.layers),
            prepared.num_classes,
            settings.encoder.matmul_precision,
        )
        return measure_costs(
            segments,
            prepared.rows["test"].lengths,
            settings.evaluate.batch_size,
            prepared.buckets,
            _MOST_LENGTHS,
        )

    def _save_model(
        self,
        evaluation: Evaluation,
        calibration: LogitBank,
        temperatures: Float32[np.ndarray, " E"],
        lte_ranges: Float32[np.ndarray, "E 2"] | None,
    ) -> None:
        prepared = self._prepared
        description = describe_model(
            prepared,
            self._work.training_digest,
            evaluation,
            temperatures,
            lte_ranges,
        )
        folder = self._work.path / MODEL
        # Its weights stay where they lie, if every file is as it was written: new
        # checksums must not cover damage.
        if MODEL in self._intact:
            update_description(folder, description, calibration)
            return
        save_model_folder(
            folder,
            description,
            self._get_params(),
            prepared.folder / "config.json",
            prepared.tokenizer,
            calibration,
        )


def _bank_file(name: str) -> str:
    return f"logits_{name}.npz"


def keep_layers(encoder: Params, num_layers: int) -> Params:
    """Returns the encoder cut to its first layers."""
    dropped = {f"layer_{i}" for i in range(num_layers, len(encoder))}
    return {name: part for name, part in encoder.items() if name not in dropped}
