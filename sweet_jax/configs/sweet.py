"""SWEET on the embedded task: Rotten Tomatoes sentences, a 6-layer MiniLM encoder.

    sweet-jax train --config=sweet
    sweet-jax train --config=sweet:encoder=bert-base-uncased
    sweet-jax train "--config=sweet:method=sweet(a=1>0)"
    sweet-jax train --config=sweet:method=two_stage

No difference from the defaults. sweet_jax/settings/fields.py documents every field; set
one with --config.section.field=value.
"""

from typing import Any

from sweet_jax.settings.config_file import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(text, method="sweet")
