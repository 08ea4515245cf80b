"""SWEET early-exit classifiers in JAX/Flax.

Importing the package imports no submodule and no jax, because `sweet_jax.report` needs
only result files. Public objects load on first use. When Python starts one of our
commands, this import also prepares the process.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweet_jax.analysis.registry import register_analysis
    from sweet_jax.data.registered import register_source
    from sweet_jax.engine.engine import register_backend
    from sweet_jax.evaluation.metrics import register_metric
    from sweet_jax.exits.criteria import register_criterion
    from sweet_jax.runs.estimator import SweetClassifier
    from sweet_jax.runs.from_python import train
    from sweet_jax.runs.run import Run
    from sweet_jax.serving.classifier import AdaptiveClassifier
    from sweet_jax.serving.load import load
    from sweet_jax.settings.fields import Settings
    from sweet_jax.training.methods import register_method

__version__ = "0.1.0"
__all__ = [
    "AdaptiveClassifier",
    "Run",
    "Settings",
    "SweetClassifier",
    "__version__",
    "load",
    "register_analysis",
    "register_backend",
    "register_criterion",
    "register_method",
    "register_metric",
    "register_source",
    "train",
]

_LAZY = {
    "AdaptiveClassifier": "sweet_jax.serving.classifier",
    "Run": "sweet_jax.runs.run",
    "Settings": "sweet_jax.settings.fields",
    "SweetClassifier": "sweet_jax.runs.estimator",
    "load": "sweet_jax.serving.load",
    "register_analysis": "sweet_jax.analysis.registry",
    "register_backend": "sweet_jax.engine.engine",
    "register_criterion": "sweet_jax.exits.criteria",
    "register_method": "sweet_jax.training.methods",
    "register_metric": "sweet_jax.evaluation.metrics",
    "register_source": "sweet_jax.data.registered",
    "train": "sweet_jax.runs.from_python",
}


def __dir__() -> list[str]:
    """Returns all public names, including those not loaded yet."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Imports a public object when it is first asked for (PEP 562)."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sweet_jax' has no attribute {name!r}")


# sys.argv[0] is -m while `python -m sweet_jax` looks for the module, otherwise it is
# the path of the script. Signals cannot be caught any earlier than here.
if os.path.basename(next(iter(getattr(sys, "argv", [])), "")) in ("-m", "sweet-jax"):
    from sweet_jax.system import stopping, streams

    streams.open_streams()
    stopping.catch_signals()

    from sweet_jax.system import process

    process.prepare()
