"""The registries that other packages may add to (docs/extending.md).

The comment at each registry names the module that registers our own values. Settings
are checked by name alone, without importing these modules. Each room states the type of
its values where it looks one up.
"""

from typing import Any

from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.registry import Registry

# Criteria that read the exits' logits alone; `lte` reads heads of its own.
LOGIT_CRITERIA = ("confidence", "entropy", "margin", "patience")
BUILTIN_CRITERIA = (*LOGIT_CRITERIA, "lte")
BUILTIN_METHODS = (
    "sweet",
    "early_exit",
    "multi_model",
    "two_stage",
    "alternating",
    "weighted",
    "self_distill",
    "gradient_equilibrium",
)


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
METHODS: Registry[Any] = Registry(
    "method", "sweet_jax.methods", builtin=BUILTIN_METHODS, check=_check_method
)
# analysis.registry: measurements during training.
ANALYSES: Registry[Any] = Registry(
    "analysis",
    "sweet_jax.analyses",
    builtin=("gradient_conflict",),
    check=_check_analysis,
)
# exits.criteria: scores that are compared with thresholds.
CRITERIA: Registry[Any] = Registry(
    "criterion", "sweet_jax.criteria", builtin=BUILTIN_CRITERIA
)
# evaluation.metrics: definitions of `score`.
METRICS: Registry[Any] = Registry(
    "metric",
    "sweet_jax.metrics",
    builtin=("accuracy", "matthews", "f1", "macro_f1", "balanced_accuracy"),
)
# data.sources: where the rows of a task come from.
SOURCES: Registry[Any] = Registry(
    "source",
    "sweet_jax.sources",
    builtin=("embedded", "file", "folder", "hub", "tfds", "rows"),
)
# engine.engine: runtimes that compute the segments of a model.
BACKENDS: Registry[Any] = Registry(
    "backend", "sweet_jax.backends", builtin=("jax", "onnx")
)
