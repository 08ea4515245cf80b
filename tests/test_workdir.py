"""Work directories: those of earlier versions go on."""

import json
from pathlib import Path

import pytest
from golden.make_workdir import INPUTS, PATH, make_settings, record

from sweet_jax import checksums
from sweet_jax import settings as settings_lib
from sweet_jax.files import write_json
from sweet_jax.resolve import from_config_dict
from sweet_jax.workdir import Workdir, WorkdirError, read_settings

OLD = json.loads(PATH.read_text(encoding="utf-8"))


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A work directory of the first version."""
    write_json(tmp_path / "config.json", OLD["config"])
    (tmp_path / "versions.json").write_text("{}", encoding="utf-8")
    checksums.record(tmp_path, "config.json")
    return tmp_path


def test_a_run_that_uses_no_added_field_is_described_as_ever():
    assert record() == OLD


def test_an_old_work_directory_goes_on_and_is_not_written_to(old_run):
    before = {path: path.read_bytes() for path in old_run.iterdir()}
    # By the same command, and from what it holds itself.
    for settings in (make_settings(), from_config_dict(read_settings(old_run))):
        work = Workdir(old_run, settings, INPUTS, writes=True)
        work.close()
        assert work.training_digest == OLD["training_digest"]
        assert work.evaluation_digest == OLD["evaluation_digest"]
    assert {path: path.read_bytes() for path in before} == before


def test_an_added_field_in_use_is_another_run(old_run):
    settings = make_settings(exits={"layers": (0, 1, 3, 5), "learn_to_exit": True})
    with pytest.raises(WorkdirError, match=r"exits.learn_to_exit was False, now True"):
        Workdir(old_run, settings, INPUTS, writes=True)
    new = Workdir(old_run / "new", settings, INPUTS, writes=True)
    new.close()
    assert new.training_digest != OLD["training_digest"]
    assert from_config_dict(read_settings(new.path)) == settings
    with pytest.raises(WorkdirError, match=r"exits.learn_to_exit was True, now False"):
        Workdir(new.path, make_settings(), INPUTS, writes=True)


def test_every_added_field_exists():
    assert (
        settings_lib.ADDED_FIELDS.keys()
        <= settings_lib.flatten_settings(settings_lib.Settings()).keys()
    )
