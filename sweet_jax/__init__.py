"""SWEET early-exit classifiers in JAX/Flax.

Importing the package imports none of its parts (and so no jax): `sweet_jax.report`
works on result files alone. The public objects load on first use. Only where Python
starts one of our commands is the process prepared for it.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweet_jax.serving.classifier import AdaptiveClassifier, load

__version__ = "0.1.0"
__all__ = ["AdaptiveClassifier", "__version__", "load"]

_LAZY = {
    "AdaptiveClassifier": "sweet_jax.serving.classifier",
    "load": "sweet_jax.serving.classifier",
}


def __getattr__(name: str) -> Any:
    """Imports a public object when it is first asked for (PEP 562)."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sweet_jax' has no attribute {name!r}")


# What sys.argv begins with while `python -m sweet_jax.main` looks for the module. There
# is no earlier place: some packages import what takes seconds before their command.
if getattr(sys, "argv", [])[:1] == ["-m"]:
    from sweet_jax.system import stopping, streams

    streams.open_streams()
    stopping.catch_signals()

    from sweet_jax.system import process

    process.prepare()
