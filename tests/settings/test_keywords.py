"""Settings by keyword: short names where they are clear, one line where not."""

import numpy as np
import pytest

from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.keywords import nest_keywords
from sweet_jax.settings.rules import SettingsError


def test_names_with_and_without_their_section():
    nested = nest_keywords(
        {
            "seed": 3,
            "max_length": 32,
            "batch_size": 4,
            "evaluate.batch_size": 8,
            "epochs": 1,
            "optim.encoder_learning_rate": 1e-4,
            "dropout": 0.2,
            "pooling": None,
        }
    )
    assert nested == {
        "seed": 3,
        "data": {"max_length": 32},
        "train": {"batch_size": 4, "num_epochs": 1},
        "evaluate": {"batch_size": 8},
        "optim": {"encoder_learning_rate": 1e-4},
        "exits": {"dropout": 0.2},
    }
    assert from_config_dict(nested).train.num_epochs == 1


def test_numbers_of_numpy_are_numbers():
    nested = nest_keywords(
        {
            "seed": np.int64(3),
            "layers": np.array([0, 1]),
            "buckets": (np.int32(8), 16),
            "learning_rate": np.float32(0.5),
            "learn_to_exit": np.bool_(True),
        }
    )
    settings = from_config_dict(nested)
    assert (settings.seed, settings.exits.layers) == (3, (0, 1))
    assert settings.data.buckets == (8, 16)
    assert settings.optim.encoder_learning_rate == 0.5
    assert settings.exits.learn_to_exit is True


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_epoch": 1}, "unknown setting 'num_epoch': did you mean num_epochs?"),
        ({"optim.learning": 1}, "did you mean optim."),
        ({"zzz": 1}, "docs/python.md"),
        ({"revision": "x"}, 'use **{"encoder.revision": ...} or **{"data.revision"'),
        ({"epochs": 1, "num_epochs": 2}, "epochs and num_epochs are the same setting"),
        ({"seed": 1, "optim": {}}, "unknown setting 'optim'"),
    ],
)
def test_a_wrong_name_is_one_line(keywords, message):
    with pytest.raises(SettingsError) as error:
        nest_keywords(keywords)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
