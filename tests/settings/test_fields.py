"""Settings: every wrong value is one clear line; AUTO resolves by method."""

import pytest

from sweet_jax.settings import fields as settings_lib
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.resolve import find_defaults
from sweet_jax.settings.rules import SettingsError

DEFAULTS = find_defaults("sweet")


def test_default_exits_by_depth():
    assert settings_lib.default_exit_layers(12) == (0, 3, 5, 11)
    assert settings_lib.default_exit_layers(3) == (0, 1, 2)
    with pytest.raises(SettingsError, match="past the encoder of 6 layers"):
        settings_lib.check_exit_layers((0, 6), 6)


def test_digests_ignore_what_is_only_measured():
    """A finished run is not orphaned by asking for its gradients."""
    fields = {"gradient_conflict": True, "steps_percent": (1,), "num_batches": 2}
    one = from_config_dict({"method": "early_exit"})
    two = from_config_dict({"method": "early_exit", "analysis": fields})
    assert one != two
    for list_fields in (settings_lib.training_fields, settings_lib.evaluation_fields):
        assert list_fields(one) == list_fields(two)


def test_digest_ignores_what_changes_no_result():
    one = from_config_dict({"train": {"checkpoint_every_steps": 5}})
    two = from_config_dict({})
    three = from_config_dict({"optim": {"clip_norm": 2.0}})
    digest = [
        settings_lib.compute_digest(settings_lib.training_fields(s))
        for s in (one, two, three)
    ]
    assert digest[0] == digest[1] != digest[2]
