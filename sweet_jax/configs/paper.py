"""The paper's settings, as far as the README of its code states them.

    sweet-jax train --config=paper:task=mnli,encoder=bert-base-uncased,method=sweet

Differences from the defaults: bert-base-uncased on MNLI with 6,000 examples of length
256, exits after layers 0, 3, 5, 11 reading the CLS state through the checkpoint's
pooler, one learning rate of 5e-5 falling linearly over 2 epochs of batch 16, no
warm-up, no weight decay. --config.faithful_release=True also reproduces the released
code's departures from the paper.
"""

from typing import Any

from sweet_jax.settings.config_file import make_config


def get_config(text: str = "") -> Any:
    """Returns the config; `text` is what follows the colon on the command line."""
    return make_config(
        text,
        method="sweet",
        encoder={"name": "bert-base-uncased"},
        exits={"layers": (0, 3, 5, 11), "pooling": "cls", "pooler_init": "checkpoint"},
        data={"task": "mnli", "max_train_examples": 6000, "max_length": 256},
        optim={
            "encoder_learning_rate": 5e-5,
            "exit_learning_rate": 5e-5,
            "warmup_percent": 0.0,
            "weight_decay": 0.0,
        },
        train={"batch_size": 16, "num_epochs": 2},
    )
