"""The stages of a run, in order; an interrupted run resumes at any of them.

prepare -> train -> logit banks -> baselines -> calibrate and evaluate -> model folder
-> report
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from sweet_jax import report
from sweet_jax.analysis.analysis import AnalysisInputs
from sweet_jax.analysis.registry import Analyses
from sweet_jax.arrays import LogitBank, Params, save_npz
from sweet_jax.devices import configure_jax, is_first_host, wait_for_hosts
from sweet_jax.engine.costs import SegmentCosts
from sweet_jax.evaluation.banks import CascadeSpec, Evaluation, evaluate_banks
from sweet_jax.evaluation.cascade import costs_from_layers
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.temperatures import RELEASED_RANGE
from sweet_jax.runs.baselines import measure_run_baselines
from sweet_jax.runs.inputs import Prepared, prepare
from sweet_jax.runs.logit_banks import CALIBRATION, DROPOUT_CALIBRATION, LogitBanks
from sweet_jax.runs.results import describe_model, make_results
from sweet_jax.runs.segment_costs import measure_segment_costs
from sweet_jax.runs.train import split_params, train_members
from sweet_jax.runs.workdir import (
    BASELINES,
    CURVES,
    METRICS,
    MODEL,
    PARAMS,
    REMEDY,
    RESULTS,
    Workdir,
    default_workdir,
)
from sweet_jax.serving.model_folder import save_model_folder, update_description
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system import checksums
from sweet_jax.system.files import read_object, write_json
from sweet_jax.trees import unflatten_paths

logger = logging.getLogger(__name__)


def run(
    settings: Settings, workdir: Path | None = None, quiet: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Runs all stages that are not yet finished in the work directory.

    Args:
        settings: settings of the run.
        workdir: work directory; None: `default_workdir`.
        quiet: whether to hide the progress.

    Returns:
        The work directory and the content of its results.json.

    Raises:
        ValueError: an input is wrong, or the work directory belongs to another run.
        Interrupted: SIGTERM stopped the training; the same call resumes. In a command,
            other signals raise its base class `stopping.Stopped` at any moment.
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
        results, open_names = pipeline.read_results(), pipeline.analyses.open_names
        has_page = (work.path / report.PAGE).exists()
        wait_for_hosts("all know whether the run is finished")
        if results is not None and has_page and not open_names:
            logger.info("%s is finished: nothing to do", work.path)
            return work.path, results
        work.require_writing()
        if results is None:
            pipeline.run()
        elif open_names:
            pipeline.measure_trained()
        if is_first_host():
            logger.info("writing the report")
            report.write_report(work.path)
        wait_for_hosts("the results are written")
        results = work.read_results()
        assert results is not None
        return work.path, results
    finally:
        work.close()


class _Pipeline:
    """The stages of one run; each reuses the files of earlier processes."""

    def __init__(
        self, prepared: Prepared, work: Workdir, quiet: bool, load_seconds: float
    ) -> None:
        self._prepared, self._work, self._quiet = prepared, work, quiet
        self._settings = prepared.settings
        self._load_seconds = load_seconds
        self._banks = LogitBanks(prepared, work.path, work.training_digest)
        self.analyses = Analyses(
            AnalysisInputs(
                self._settings, prepared.trainings, work.path, is_first_host()
            )
        )
        self._outputs = (METRICS, *self._banks.files, MODEL, CURVES)
        if self._settings.evaluate.baselines:
            self._outputs += (BASELINES,)
        # Checked once, before any process writes.
        self._intact = work.find_intact((*self._outputs, RESULTS))
        self._has_params = MODEL in self._intact or bool(
            checksums.find_intact(work.path, [PARAMS])
        )
        self._params: Params | None = None

    def read_results(self) -> dict[str, Any] | None:
        """Returns results.json if the run is finished and its files are intact."""
        if not self._intact.issuperset(self._outputs):
            return None
        return self._work.read_results()

    def measure_trained(self) -> None:
        """Runs open measurements at the last step of a finished training.

        Raises:
            SettingsError: the stored parameters are not those of the last step.
        """
        if self._settings.train.select == "best":
            names = " and ".join(self.analyses.open_names)
            raise SettingsError(
                f"{self._work.path} is trained, and train.select=best keeps its best"
                f" epoch, not its last step: ask for the analysis {names} from the"
                " start, in another --workdir"
            )
        names = [member.name for member in self._prepared.members]
        self.analyses.measure_trained(split_params(self._get_params(), names))
        results = self.read_results()
        if results is None or not is_first_host():
            return
        if summaries := self.analyses.summarize():
            results["analyses"] = results.get("analyses", {}) | summaries
            write_json(self._work.path / RESULTS, results)
            self._work.record(RESULTS)

    def run(self) -> None:
        """Runs the remaining stages; only process 0 writes files."""
        if not (self._has_params and METRICS in self._intact):
            self._train()
        elif self.analyses.open_names:
            self.measure_trained()
        baselines = self._measure_baselines()
        start = time.perf_counter()
        banks = self._banks.read(self._intact)
        if banks is None:
            logger.info("computing the outputs of all exits")
            banks = self._banks.collect(self._get_params())
        if not is_first_host():
            return
        logger.info("calibrating and evaluating")
        calibration = self._calibrate(banks)
        evaluations = {
            name: self._evaluate(bank, calibration)
            for name, bank in banks.items()
            if name not in (CALIBRATION, DROPOUT_CALIBRATION)
        }
        seconds = time.perf_counter() - start - self._banks.collector.programs.seconds
        results = make_results(
            prepared=self._prepared,
            work=self._work,
            evaluations=evaluations,
            collector=self._banks.collector,
            load_seconds=self._load_seconds,
            evaluate_seconds=seconds,
            costs=self._measure_costs(),
            baselines=baselines,
        )
        if summaries := self.analyses.summarize():
            results["analyses"] = summaries
        self._save_model(evaluations["test"], calibration)
        save_npz(self._work.path / CURVES, evaluations["test"].arrays)
        # The page marks a run as finished, so an old one is removed first.
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
        """Trains or restores every member; all later outputs are made again."""
        self._intact &= {BASELINES}  # They do not depend on the training.
        if is_first_host():
            self._work.forget_outputs()
            # Every checkpoint contains a copy and restores it.
            (self._work.path / METRICS).unlink(missing_ok=True)
        self._params = train_members(
            self._prepared, self._work, self.analyses, self._quiet
        )

    def _measure_baselines(self) -> dict[str, Any] | None:
        """Returns the baselines; None if turned off, or on another than process 0.

        They depend on rows and encoder alone, which are those of the work directory.
        """
        if not self._settings.evaluate.baselines:
            return None
        path = self._work.path / BASELINES
        if BASELINES in self._intact:
            return read_object(path, REMEDY)
        logger.info("fitting the baselines")
        baselines = measure_run_baselines(self._prepared)
        if baselines is not None:
            write_json(path, baselines)
            self._work.record(BASELINES)
        return baselines

    def _calibrate(self, banks: dict[str, LogitBank]) -> Calibration:
        settings = self._settings
        costs_E = costs_from_layers(
            settings.exits.layers, self._prepared.has_separate_models
        )
        measured = (banks[CALIBRATION], costs_E, self._prepared.raw.task.metric)
        if settings.faithful_release:
            return Calibration.fit(
                *measured, banks[DROPOUT_CALIBRATION], RELEASED_RANGE
            )
        return Calibration.fit(*measured)

    def _evaluate(self, bank: LogitBank, calibration: Calibration) -> Evaluation:
        prepared = self._prepared
        return evaluate_banks(
            CascadeSpec.from_settings(self._settings, prepared.has_separate_models),
            test=bank,
            calibration=calibration,
            train_label_counts_C=np.bincount(
                prepared.splits.train.labels, minlength=prepared.num_classes
            ),
        )

    def _measure_costs(self) -> SegmentCosts | None:
        """Returns the cost of the segments on test rows; None if turned off."""
        if not self._settings.evaluate.measure_costs:
            return None
        logger.info("measuring the cost of every segment")
        return measure_segment_costs(self._prepared, self._get_params())

    def _save_model(self, evaluation: Evaluation, calibration: Calibration) -> None:
        logger.info("writing the model")
        prepared = self._prepared
        description = describe_model(
            prepared, self._work.training_digest, evaluation, calibration
        )
        folder = self._work.path / MODEL
        # The weights are kept only if every file is intact: new checksums must not hide
        # damage.
        if MODEL in self._intact:
            update_description(folder, description, calibration.bank)
            return
        save_model_folder(
            folder,
            description,
            self._get_params(),
            prepared.folder / "config.json",
            prepared.tokenizer,
            calibration.bank,
        )
