"""Inputs of PAPA: one line for each that is wrong, before any work."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from papa_models import load_frozen, make_rows

from sweet_jax.models.roberta import close_gaps
from sweet_jax.runs.papa_inputs import prepare_papa
from sweet_jax.settings.papa import papa_from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.files import FileError


def prepare(encoder, task, data=None, **papa):
    config = {
        "encoder": {"name": str(encoder)},
        "data": {
            "train_file": str(task / "train.jsonl"),
            "test_file": str(task / "test.jsonl"),
            "calibration_examples": 24,
            **(data or {}),
        },
        "papa": {"length": 16, **papa},
    }
    return prepare_papa(*papa_from_config_dict(config))


def test_rows_lie_in_their_slots_and_heads_are_counted(tiny_encoder, tiny_task):
    inputs = prepare(tiny_encoder, tiny_task)
    assert inputs.train.mask.shape == (96, 16)
    assert inputs.scored.num_rows == 50
    assert inputs.papa.constant_heads == (0, 4, 7, 8)
    chosen = prepare(tiny_encoder, tiny_task, constant_heads=(3, 8))
    assert chosen.papa.constant_heads == (0, 3, 8)


def test_settings_are_chosen_on_calibration_part_0(tiny_encoder, tiny_task):
    inputs = prepare(tiny_encoder, tiny_task, score_on="calibration")
    part = inputs.splits.part == 0
    assert inputs.scored.num_rows == part.sum() == 12
    expected = inputs.splits.calibration.row_ids[part]
    assert inputs.scored.row_ids.tolist() == expected.tolist()
    data = {"calibration_examples": 0}
    with pytest.raises(SettingsError, match="needs labelled calibration rows"):
        prepare(tiny_encoder, tiny_task, data, score_on="calibration")


@pytest.mark.parametrize(
    ("papa", "message"),
    [
        ({"length": 34}, r"papa\.length=34: the encoder .* even numbers from 8 to 32"),
        (
            {"constant_heads": (0, 9)},
            r"papa\.constant_heads=\(0, 9\): the encoder has 4 layers of 2 heads,"
            r" allowed are numbers from 0 to 8",
        ),
        ({"constants": ("averages_97",)}, "averages_97: there are 96 training rows"),
    ],
)
def test_limits_of_the_encoder_and_the_rows(tiny_encoder, tiny_task, papa, message):
    with pytest.raises(SettingsError, match=message):
        prepare(tiny_encoder, tiny_task, **papa)


def test_identity_tells_encoders_layouts_lengths_and_rows_apart(
    tiny_encoder, make_tiny_encoder, tiny_task
):
    own = prepare(tiny_encoder, tiny_task).identity
    others = {
        "encoder": prepare(make_tiny_encoder("mpnet"), tiny_task),
        "layout": prepare(
            tiny_encoder, tiny_task, {"max_train_examples": 2000}, faithful_release=True
        ),
        "length": prepare(tiny_encoder, tiny_task, length=14),
        "rows": prepare(tiny_encoder, tiny_task, {"max_train_examples": 40}),
    }
    for field, other in others.items():
        assert {n for n in own if own[n] != other.identity[n]} == {field}


def test_the_released_form_knows_its_families_and_their_dropout(
    tiny_encoder, make_tiny_encoder, tiny_task
):
    assert prepare(tiny_encoder, tiny_task, faithful_release=True).papa.dropout == 0.1
    roberta = prepare(make_tiny_encoder("roberta"), tiny_task, faithful_release=True)
    assert roberta.papa.dropout == 0.0
    assert type(roberta.frozen.encoder) is type(close_gaps(roberta.frozen.encoder))
    with pytest.raises(SettingsError, match="released code has bert, roberta, deberta"):
        prepare(make_tiny_encoder("mpnet"), tiny_task, faithful_release=True)


@pytest.mark.slow
def test_released_positions_close_the_gap(make_tiny_encoder):
    frozen = load_frozen(make_tiny_encoder("roberta"))
    batch = make_rows(2).take(np.arange(2), 2)
    batch = batch._replace(token_ids=np.where(batch.mask, batch.token_ids, 1))
    closing = close_gaps(frozen.encoder)

    def embed(encoder, batch):
        variables = {"params": frozen.params}
        return encoder.apply(variables, batch, False, method="embed")["x_BLD"]

    moved = embed(closing, batch)
    for i in range(2):
        real = batch.mask[i] == 1
        packed = batch._replace(
            token_ids=batch.token_ids[i : i + 1, real],
            type_ids=batch.type_ids[i : i + 1, real],
            mask=batch.mask[i : i + 1, real],
        )
        np.testing.assert_allclose(
            moved[i, real], embed(frozen.encoder, packed)[0], atol=1e-6
        )
    assert jnp.abs(moved - embed(frozen.encoder, batch)).max() > 0.01


def test_a_missing_encoder_file_is_named(tiny_encoder, tiny_task, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises((FileError, ValueError), match="encoder"):
        prepare(folder, tiny_task)
