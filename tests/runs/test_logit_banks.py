"""The banks of a run: what is collected on which rows, written, and read back."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_model import init_dense_params, make_dense_model

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.runs.inputs import Prepared, prepare
from sweet_jax.runs.logit_banks import LogitBanks
from sweet_jax.settings.fields import replace_fields
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.system.files import FileError


@pytest.fixture
def prepared(tiny_config: dict[str, Any], shared_cache, monkeypatch) -> Prepared:
    """Rows of the tiny task for a model that compiles at once, of one length."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    tiny_config["data"]["buckets"] = (16,)
    return dataclasses.replace(
        prepare(from_config_dict(tiny_config)), models=(make_dense_model(),)
    )


@pytest.fixture(scope="module")
def params() -> Params:
    return init_dense_params(make_dense_model())


def assert_same(one: dict[str, LogitBank], other: dict[str, LogitBank]) -> None:
    assert one.keys() == other.keys()
    for name, bank in one.items():
        for field in ("logits", "labels", "weights", "row_ids", "part"):
            np.testing.assert_array_equal(
                getattr(bank, field), getattr(other[name], field)
            )


def test_what_is_collected_is_read_back_while_all_of_it_is_intact(
    prepared, params, tmp_path
):
    banks = LogitBanks(prepared, tmp_path, "mine")
    assert banks.names == ["calibration", "test"]
    assert banks.files == ("logits_calibration.npz", "logits_test.npz")
    collected = banks.collect(params)
    for name, bank in collected.items():
        rows = prepared.rows[name]
        np.testing.assert_array_equal(bank.row_ids, rows.row_ids)
        np.testing.assert_array_equal(bank.labels, rows.labels)
    # Calibration rows alone have a part.
    np.testing.assert_array_equal(collected["calibration"].part, prepared.splits.part)
    assert set(collected["calibration"].part) == {0, 1}
    assert not collected["test"].part.any()

    again = LogitBanks(prepared, tmp_path, "mine")
    found = again.read({*banks.files, "model"})
    assert found is not None
    assert_same(found, collected)
    for lacking in banks.files:
        assert again.read({*banks.files} - {lacking}) is None
    with pytest.raises(FileError, match="is of another training"):
        LogitBank.load(tmp_path / banks.files[0], digest="another")
    LogitBank.load(tmp_path / banks.files[0], digest="mine")


def test_hosts_but_the_first_write_nothing(prepared, params, tmp_path, monkeypatch):
    monkeypatch.setattr("sweet_jax.runs.logit_banks.is_first_host", lambda: False)
    banks = LogitBanks(prepared, tmp_path, "mine")
    assert banks.collect(params).keys() == {"calibration", "test"}
    assert not list(tmp_path.iterdir())


def test_the_released_calibration_has_dropout_that_follows_from_the_seed(
    prepared, params, tmp_path
):
    """Whatever the batches of evaluation are."""

    def collect(folder: str, **changes: Any) -> dict[str, LogitBank]:
        changes = {"faithful_release": True} | changes
        settings = replace_fields(prepared.settings, changes)
        path = Path(tmp_path / folder)
        path.mkdir()
        released = dataclasses.replace(prepared, settings=settings)
        return LogitBanks(released, path, "mine").collect(params)

    first = collect("first")
    assert list(first) == ["calibration", "test", "calibration_dropout"]
    plain, dropped = first["calibration"], first["calibration_dropout"]
    assert (tmp_path / "first" / "logits_calibration_dropout.npz").exists()
    np.testing.assert_array_equal(plain.row_ids, dropped.row_ids)
    np.testing.assert_array_equal(plain.part, dropped.part)
    assert np.abs(plain.logits - dropped.logits).max() > 1e-4
    same = collect("same", **{"evaluate.batch_size": 7})["calibration_dropout"]
    np.testing.assert_array_equal(same.logits, dropped.logits)
    other = collect("other", seed=prepared.settings.seed + 1)
    assert (other["calibration_dropout"].logits != dropped.logits).any()
    np.testing.assert_array_equal(other["calibration"].logits, plain.logits)
