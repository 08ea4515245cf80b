"""Which analyses there are, and those of one run together.

`register_analysis` adds one from outside (docs/extending.md).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from sweet_jax.analysis.analysis import Analysis, AnalysisInputs
from sweet_jax.analysis.conflict_measurements import GradientConflict
from sweet_jax.arrays import Params
from sweet_jax.devices import replicate
from sweet_jax.settings.fields import SettingsError
from sweet_jax.settings.registries import ANALYSES
from sweet_jax.system.files import format_json

ANALYSES.register("gradient_conflict", GradientConflict)


def register_analysis(name: str, analysis: Any = None, *, replace: bool = False) -> Any:
    """Adds an analysis, so that `analysis.names=NAME` measures it.

    Args:
        name: as settings, results and the report show it.
        analysis: a subclass of `Analysis` that is made from `AnalysisInputs` alone, or
            a function of them that returns one; None: returns a decorator.
        replace: take the name over from an earlier registration, as when a cell of a
            notebook runs again.

    Returns:
        The analysis, unchanged.

    Raises:
        ValueError: the name is taken or malformed, or the analysis is no function.
    """
    return ANALYSES.register(name, analysis, replace=replace)


class Analyses:
    """The analyses that a run's settings ask for, as its runner calls them."""

    def __init__(self, inputs: AnalysisInputs) -> None:
        """Takes up what an earlier process measured.

        Raises:
            ValueError: an analysis does not fit the run, or one of its files is damaged
                or that of another analysis.
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
        """The analyses that still want to measure a step."""
        members = [training.member.name for training in self._inputs.trainings]
        return tuple(
            name
            for name, analysis in self._analyses.items()
            if any(analysis.find_open_steps(member) for member in members)
        )

    def find_calls(self, member: str) -> dict[int, Callable[[int, Params], None]]:
        """Returns what the training of a member calls, by the steps done."""
        wanted: dict[int, list[Analysis]] = {}
        for analysis in self._analyses.values():
            for step in analysis.find_open_steps(member):
                wanted.setdefault(step, []).append(analysis)
        return {
            step: functools.partial(_measure_all, analyses, member)
            for step, analyses in wanted.items()
        }

    def measure_trained(self, params: Mapping[str, Params]) -> None:
        """Measures the last step of a training that is over, where that is open.

        Args:
            params: of every member by its name, on the host.
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
        """Returns the summaries by analysis; those that have none are left out.

        Raises:
            SettingsError: a summary is no dict, or cannot be written as JSON.
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
            " sweet_jax.analysis.analysis.Analysis: repair what is registered"
        )
    return analysis


def _measure_all(
    analyses: list[Analysis], member: str, step: int, params: Params
) -> None:
    for analysis in analyses:
        analysis.measure(member, step, params)
