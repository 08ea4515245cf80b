"""The paper's comparison on the embedded task: methods x seeds, one command.

    sweet-jax train --config=study
    sweet-jax train --config=study --config.study.shard=0/2
    sweet-jax train --config=study:task=rte,encoder=roberta-base

The same command resumes where it stopped; several processes may share a folder.
`StudySettings` in sweet_jax/settings/fields.py has the compared methods, tasks and
seeds; all other fields are those of a single run.
"""

from typing import Any

from sweet_jax.settings.config_file import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(
        text,
        data={"max_train_examples": 1000},
        study={"methods": ("multi_model", "early_exit", "sweet", "sweet(a=0.5)")},
    )
