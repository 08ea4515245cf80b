"""The paper's comparison on the embedded task: methods x seeds, one command.

    python -m sweet_jax.main --config=configs/study.py
    python -m sweet_jax.main --config=configs/study.py --config.study.shard=0/2
    python -m sweet_jax.main --config=configs/study.py:task=rte,encoder=roberta-base

The same command goes on where it stopped; several processes may share a folder. What is
compared stands in `StudySettings` in sweet_jax/settings/fields.py, all other fields are
those of a single run.
"""

from typing import Any

from sweet_jax.commands.flags import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(
        text,
        data={"max_train_examples": 1000},
        study={"methods": ("multi_model", "early_exit", "sweet", "sweet(a=0.5)")},
    )
