"""What other packages may add to, by the names that settings, commands and files use.

The values lie above: the module that is named here registers ours. Settings are checked
by name alone, and import none of them.
"""

from typing import TYPE_CHECKING

from sweet_jax.settings.fields import BUILTIN_CRITERIA
from sweet_jax.system.registry import Registry

if TYPE_CHECKING:
    from sweet_jax.evaluation.metrics import Metric
    from sweet_jax.exits.criteria import Criterion

# exits.criteria
CRITERIA: "Registry[Criterion]" = Registry(
    "criterion", "sweet_jax.criteria", builtin=BUILTIN_CRITERIA
)
# evaluation.metrics
METRICS: "Registry[Metric]" = Registry(
    "metric",
    "sweet_jax.metrics",
    builtin=("accuracy", "matthews", "f1", "macro_f1", "balanced_accuracy"),
)
