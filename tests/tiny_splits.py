"""Rows of tasks for tests of how they are split."""

import numpy as np

from sweet_jax.data.examples import Examples, RawTask
from sweet_jax.data.tasks import get_task
from sweet_jax.settings.from_config import from_config_dict


def make_rows(num_rows, first_share=0.5, mark="row"):
    """Rows sorted by class, as the embedded ones are."""
    labels = (np.arange(num_rows) >= num_rows * first_share).astype(np.int32)
    return Examples(
        texts=tuple(f"{mark} {i}" for i in range(num_rows)),
        pairs=None,
        labels=labels,
        row_ids=np.arange(num_rows, dtype=np.int64),
    )


def make_raw(task: str = "file", **sizes: int) -> RawTask:
    splits = {name: make_rows(size, mark=name) for name, size in sizes.items()}
    return RawTask(get_task(task), splits, ("0", "1"))


def make_settings(seed=0, train=100, calibration=50, **fields):
    data = {"max_train_examples": train, "calibration_examples": calibration}
    return from_config_dict({"seed": seed, "data": data, **fields})


def get_ids(examples):
    return set(examples.row_ids.tolist())


SOURCES = [
    {"all": 1000},
    {"train": 600, "test": 100},
    {"train": 600, "validation": 80},
    {"train": 600, "validation": 80, "test": 100},
    {"train": 600},
]


def make_few_shot(shots, seed=0, **data):
    return from_config_dict({"seed": seed, "data": {"shots": shots, **data}})
