"""The registry of analyses, and the analyses of one run.

`register_analysis` adds an analysis from another package (docs/extending.md).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from sweet_jax.analysis.analysis import Analysis, AnalysisInputs
from sweet_jax.analysis.conflict_measurements import GradientConflict
from sweet_jax.arrays import Params
from sweet_jax.devices import replicate
from sweet_jax.settings.registries import ANALYSES
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.files import format_json

ANALYSES.register("gradient_conflict", GradientConflict)


def register_analysis(name: str, analysis: Any = None, *, replace: bool = False) -> Any:
    """Registers an analysis, so that `analysis.names=NAME` runs it.

    Args:
        name: the name in settings, results and the report.
        analysis: a subclass of `Analysis` whose constructor takes `AnalysisInputs`, or
            a function of them that returns one; None: returns a decorator.
        replace: allows a name that is already registered, for notebook cells that run
            again.

    Returns:
        The analysis, unchanged.

    Raises:
        ValueError: the name is taken or malformed, or the analysis is not callable.
    """
    return ANALYSES.register(name, analysis, replace=replace)


class Analyses:
    """The analyses that a run's settings name, with one interface for the pipeline."""

    def __init__(self, inputs: AnalysisInputs) -> None:
        """Constructs the analyses, which read measurements of earlier processes.

        Raises:
            ValueError: an analysis does not fit the run, or one of its files is damaged
                or belongs to another analysis.
        """
        self._inputs = inputs
        self._analyses: dict[str, Analysis] = {
            name: _make(name, inputs) for name in inputs.settings.analysis.wanted
        }
        owners: dict[str, str] = {}
        for name, analysis in self._analyses.items():
            for file in analysis.files:
                if (other := owners.setdefault(file, name)) != name:
                    raise SettingsError(
                        f"the analyses {other} and {name} both write {file}: ask for"
                        " one of them"
                    )

    @property
    def open_names(self) -> tuple[str, ...]:
        """The analyses that still have steps to measure."""
        members = [training.member.name for training in self._inputs.trainings]
        return tuple(
            name
            for name, analysis in self._analyses.items()
            if any(analysis.find_open_steps(member) for member in members)
        )

    def find_calls(self, member: str) -> dict[int, Callable[[int, Params], None]]:
        """Returns the functions that a member's training calls, by steps done."""
        wanted: dict[int, list[Analysis]] = {}
        for analysis in self._analyses.values():
            for step in analysis.find_open_steps(member):
                wanted.setdefault(step, []).append(analysis)
        return {
            step: functools.partial(_measure_all, analyses, member)
            for step, analyses in wanted.items()
        }

    def measure_trained(self, params: Mapping[str, Params]) -> None:
        """Measures the last step of a finished training, if it is open.

        Args:
            params: parameters of every member by its name, on the host.
        """
        for training in self._inputs.trainings:
            member, step = training.member.name, training.num_steps
            if (call := self.find_calls(member).get(step)) is not None:
                call(step, replicate(params[member], training.mesh))
        self.finish()

    def finish(self) -> None:
        """Tells all analyses that training is over."""
        for analysis in self._analyses.values():
            analysis.finish()

    def summarize(self) -> dict[str, dict[str, Any]]:
        """Returns the summaries by analysis, without empty ones.

        Raises:
            SettingsError: a summary is not a dict, or cannot be written as JSON.
        """
        summaries = {name: a.summarize() for name, a in self._analyses.items()}
        for name, summary in summaries.items():
            try:
                format_json(dict(summary))
            except (TypeError, ValueError) as error:
                raise SettingsError(
                    f"the summary of analysis {name!r} cannot be written as JSON"
                    f" ({error}): return finite numbers, texts and lists by name"
                ) from error
        return {name: summary for name, summary in summaries.items() if summary}


def _make(name: str, inputs: AnalysisInputs) -> Analysis:
    analysis: object = ANALYSES.lookup(name)(inputs)
    if not isinstance(analysis, Analysis):
        raise SettingsError(
            f"analysis {name!r} makes a {type(analysis).__name__}, expected a"
            " sweet_jax.analysis.analysis.Analysis: correct the registered function"
        )
    return analysis


def _measure_all(
    analyses: list[Analysis], member: str, step: int, params: Params
) -> None:
    for analysis in analyses:
        analysis.measure(member, step, params)
