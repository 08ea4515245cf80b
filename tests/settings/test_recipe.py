"""The default that follows from the training rows."""

import pytest

from sweet_jax.settings.fields import flatten_settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.recipe import (
    FROM_ROWS,
    LEAST_EPOCHS,
    LEAST_STEPS,
    settle_recipe,
)
from sweet_jax.settings.registries import BUILTIN_METHODS


def settle(num_rows: int, num_classes: int, **config) -> dict:
    settings = settle_recipe(from_config_dict(config), num_rows, num_classes)
    flat = flatten_settings(settings)
    return {name: flat[name] for name in FROM_ROWS}


@pytest.mark.parametrize(("num_rows", "num_classes"), [(16, 2), (2500, 77), (9000, 2)])
def test_all_methods_share_the_recipe(num_rows, num_classes):
    first, *others = (
        settle(num_rows, num_classes, method=method) for method in BUILTIN_METHODS
    )
    assert all(other == first for other in others)


@pytest.mark.parametrize("num_rows", [1, 16, 47, 48, 300, 1600, 1601, 100_000])
@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_few_rows_are_passed_over_until_there_are_enough_steps(num_rows, batch_size):
    epochs = settle(num_rows, 2, train={"batch_size": batch_size})["train.num_epochs"]
    steps_per_epoch = -(-num_rows // batch_size)
    assert epochs >= LEAST_EPOCHS
    assert epochs * steps_per_epoch >= LEAST_STEPS
    fewer = epochs - 1
    assert fewer < LEAST_EPOCHS or fewer * steps_per_epoch < LEAST_STEPS


def test_exits_are_probed_where_classes_have_few_rows():
    starts = {n: settle(n, 4)["exits.init"] for n in (8, 400, 40_000)}
    assert starts == {8: "probe", 400: "probe", 40_000: "random"}
    # Rows per class decide, not rows.
    assert settle(40_000, 4000)["exits.init"] == "probe"
    # The checkpoint's pooler was asked for: a probe would replace it.
    taken = settle(8, 4, exits={"pooler_init": "checkpoint"})
    assert taken["exits.init"] == "random"


def test_what_was_given_stays():
    given = {
        "exits": {"init": "random"},
        "optim": {"encoder_learning_rate": 2e-5, "exit_learning_rate": 0.0},
        "train": {"num_epochs": 1},
    }
    assert [*settle(8, 2, **given).values()] == ["random", 2e-5, 0.0, 1]
    released = settle(8, 2, faithful_release=True)
    assert [*released.values()] == ["random", 5e-5, 5e-5, 2]
