"""A phase's compiled steps: what they need, and that something learns in them."""

import dataclasses

import jax.numpy as jnp
import pytest
from dense_model import train_dense

import sweet_jax
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.registries import METHODS
from sweet_jax.settings.rules import SettingsError
from sweet_jax.training.methods import make_early_exit, make_members
from sweet_jax.training.objectives import Member
from sweet_jax.training.phase_run import measure_step


@pytest.mark.slow
def test_sweet_needs_less_temporary_memory_than_early_exit(tiny_encoder):
    """Stacking the exits' losses would tie their backward passes together."""
    wide = dataclasses.replace(
        load_config(tiny_encoder),
        hidden_dropout=0.0,
        attention_dropout=0.0,
        hidden_size=64,
        intermediate_size=256,
    )
    big = MultiExitClassifier(
        encoder=make_encoder(wide, 3, jnp.float32),
        exit_layers=(0, 1, 2),
        exit_numbers=(0, 1, 2),
        num_classes=2,
        features=64,
        settings=ExitSettings(pooling="mean", dropout=0.1),
    )
    sizes = {}
    for method in ("sweet", "early_exit"):
        settings = from_config_dict({"method": method})
        phase = make_members(settings, 3)[0].phases[0]
        sizes[method] = measure_step(big, phase, settings, 32).temporary_bytes
    assert sizes["sweet"] < 0.75 * sizes["early_exit"], sizes


def test_a_phase_in_which_nothing_learns_is_refused(monkeypatch, tmp_path):
    def make_frozen(settings, num_exits: int) -> tuple[Member, ...]:
        (member,) = make_early_exit(settings, num_exits)
        (phase,) = member.phases
        frozen = dataclasses.replace(phase, trainable=("exit_0/.*",))
        return (dataclasses.replace(member, phases=(phase, frozen)),)

    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))
    sweet_jax.register_method("frozen", make_frozen)
    with pytest.raises(SettingsError, match=r"trainable=\('exit_0/\.\*',\) matches no"):
        train_dense(tmp_path / "run", method="frozen")
    assert not (tmp_path / "run" / "metrics.jsonl").exists(), "before any step"
