"""PAPA on the embedded task: how much does the attention of MiniLM attend?

    sweet-jax analyze papa --config=papa
    sweet-jax analyze papa --config=papa:task=cola,encoder=bert-base-uncased
    sweet-jax analyze papa --config=papa --config.papa.constants=averages,uniform
    sweet-jax analyze papa --config=papa --config.papa.faithful_release=True

`PapaSettings` in sweet_jax/settings/fields.py documents every field; encoder, rows and
seed are those of a training.
"""

from typing import Any

from sweet_jax.settings.config_file import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(text, papa={})
