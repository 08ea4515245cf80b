"""The registries that other packages may add to (docs/extending.md).

The comment at each registry names the module that registers our own values. Settings
are checked by name alone, without importing these modules.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sweet_jax.settings.fields import (
    BUILTIN_CRITERIA,
    BUILTIN_METHODS,
    Settings,
    SettingsError,
)
from sweet_jax.system.registry import Registry

if TYPE_CHECKING:
    from sweet_jax.analysis.analysis import Analysis, AnalysisInputs
    from sweet_jax.data.registered import Source
    from sweet_jax.engine.backend import BackendFn
    from sweet_jax.evaluation.metrics import Metric
    from sweet_jax.exits.criteria import Criterion
    from sweet_jax.training.objectives import Member


def _check_method(name: str, value: object) -> None:
    """Raises SettingsError if the value of a method is not callable."""
    if not callable(value):
        raise SettingsError(
            f"method {name!r} is a {type(value).__name__}: register a function of the"
            " settings and the number of exits that returns Members"
        )


def _check_analysis(name: str, value: object) -> None:
    """Raises SettingsError if the value of an analysis is not callable."""
    if not callable(value):
        raise SettingsError(
            f"analysis {name!r} is a {type(value).__name__}: register a subclass of"
            " sweet_jax.analysis.analysis.Analysis"
        )


# training.methods: how the exits are trained.
METHODS: "Registry[Callable[[Settings, int], tuple[Member, ...]]]" = Registry(
    "method", "sweet_jax.methods", builtin=BUILTIN_METHODS, check=_check_method
)
# analysis.registry: measurements during training.
ANALYSES: "Registry[Callable[[AnalysisInputs], Analysis]]" = Registry(
    "analysis",
    "sweet_jax.analyses",
    builtin=("gradient_conflict",),
    check=_check_analysis,
)
# exits.criteria: scores that are compared with thresholds.
CRITERIA: "Registry[Criterion]" = Registry(
    "criterion", "sweet_jax.criteria", builtin=BUILTIN_CRITERIA
)
# evaluation.metrics: definitions of `score`.
METRICS: "Registry[Metric]" = Registry(
    "metric",
    "sweet_jax.metrics",
    builtin=("accuracy", "matthews", "f1", "macro_f1", "balanced_accuracy"),
)
# data.sources: where the rows of a task come from.
SOURCES: "Registry[Source]" = Registry(
    "source",
    "sweet_jax.sources",
    builtin=("embedded", "file", "folder", "hub", "tfds", "rows"),
)
# engine.engine: runtimes that compute the segments of a model.
BACKENDS: "Registry[BackendFn]" = Registry(
    "backend", "sweet_jax.backends", builtin=("jax",)
)
