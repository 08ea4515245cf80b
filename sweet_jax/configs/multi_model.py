"""Separate models, one per exit: the paper's second baseline.

    sweet-jax train --config=multi_model

Differences from the defaults: method.
"""

from typing import Any

from sweet_jax.settings.config_file import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(text, method="multi_model")
