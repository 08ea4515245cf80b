"""The default that follows from the training rows: start, learning rates and epochs.

All methods share it, so that a comparison differs in the method alone. docs/defaults.md
says how it was found.
"""

import math

from sweet_jax.settings.fields import AUTO, Settings, replace_fields

# What `settle_recipe` fills in.
FROM_ROWS = (
    "exits.init",
    "optim.encoder_learning_rate",
    "optim.exit_learning_rate",
    "train.num_epochs",
)
# Where a class has fewer training rows than this on average, exits start as probes.
PROBED_ROWS_PER_CLASS = 400
LEAST_EPOCHS, LEAST_STEPS = 3, 300
_ENCODER_LEARNING_RATE, _EXIT_LEARNING_RATE = 1e-4, 1e-3


def settle_recipe(settings: Settings, num_rows: int, num_classes: int) -> Settings:
    """Returns settings in which the fields that follow from the rows are filled in.

    These are `FROM_ROWS`. What was given stays.

    Args:
        settings: resolved (`resolve`).
        num_rows: number of training rows.
        num_classes: number of classes C of the task.
    """
    exits, optim, train = settings.exits, settings.optim, settings.train
    changes: dict[str, str | float | int] = {}
    if exits.init == "auto":
        is_probed = (
            num_rows < PROBED_ROWS_PER_CLASS * num_classes
            and exits.pooler_init != "checkpoint"
        )
        changes["exits.init"] = "probe" if is_probed else "random"
    if optim.encoder_learning_rate == AUTO:
        changes["optim.encoder_learning_rate"] = _ENCODER_LEARNING_RATE
    if optim.exit_learning_rate == AUTO:
        changes["optim.exit_learning_rate"] = _EXIT_LEARNING_RATE
    if train.num_epochs == AUTO:
        steps_per_epoch = math.ceil(num_rows / train.batch_size)
        changes["train.num_epochs"] = max(
            LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch)
        )
    return replace_fields(settings, changes)
