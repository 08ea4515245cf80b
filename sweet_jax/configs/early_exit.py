"""Ordinary early exit: all exits trained jointly, the paper's first baseline.

    sweet-jax train --config=early_exit

Differences from the defaults: method.
"""

from typing import Any

from sweet_jax.settings.config_file import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(text, method="early_exit")
