"""Ordinary early exit: all exits trained jointly, the paper's first baseline.

    python -m sweet_jax.main --config=configs/early_exit.py

Differences from the defaults: method.
"""

from typing import Any

from sweet_jax.commands.flags import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(text, method="early_exit")
