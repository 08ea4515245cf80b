"""SWEET on the embedded task: Rotten Tomatoes sentences, a 6-layer MiniLM encoder.

    python -m sweet_jax.main --config=configs/sweet.py
    python -m sweet_jax.main --config=configs/sweet.py:encoder=bert-base-uncased
    python -m sweet_jax.main "--config=configs/sweet.py:method=sweet(a=1>0)"
    python -m sweet_jax.main --config=configs/sweet.py:method=two_stage

No difference from the defaults; every field stands, with its meaning, in
sweet_jax/settings/fields.py and takes --config.section.field=value.
"""

from typing import Any

from sweet_jax.commands.flags import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(text, method="sweet")
