"""Work directories: whose they are, and what they say of a run."""

from pathlib import Path
from typing import Any

import pytest

from sweet_jax.runs.workdir import Workdir, WorkdirError, read_settings
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict

# Digests of inputs: any text.
INPUTS = {"encoder_weights": "0123456789abcdef", "train_rows": "fedcba9876543210"}


def make_settings(**fields: Any) -> Settings:
    """Returns settings with the exits that `prepare` fills in."""
    return from_config_dict({"exits": {"layers": (0, 1, 3, 5)}} | fields)


def open_and_close(path: Path, settings: Settings) -> Workdir:
    work = Workdir(path, settings, INPUTS, writes=True)
    work.close()
    return work


def test_a_run_goes_on_by_its_command_and_by_what_it_holds(tmp_path):
    settings = make_settings(method="sweet(a=0.2)", train={"num_epochs": 2})
    first = open_and_close(tmp_path, settings)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    stored = from_config_dict(read_settings(tmp_path))
    assert stored == settings
    again = open_and_close(tmp_path, stored)
    assert again.training_digest == first.training_digest
    assert again.evaluation_digest == first.evaluation_digest
    assert {path: path.read_bytes() for path in before} == before


def test_another_run_is_refused_with_what_differs(tmp_path):
    open_and_close(tmp_path, make_settings())
    other = make_settings(exits={"layers": (0, 1, 3, 5), "learn_to_exit": True})
    with pytest.raises(WorkdirError, match=r"exits.learn_to_exit was False, now True"):
        open_and_close(tmp_path, other)
    with pytest.raises(WorkdirError, match=r"inputs.train_rows was 'f.*now \(none\)"):
        Workdir(
            tmp_path, make_settings(), {"encoder_weights": "0123456789abcdef"}, True
        )


def test_evaluation_digest_alone_sees_what_is_evaluated(tmp_path):
    one = open_and_close(tmp_path / "one", make_settings())
    fewer = make_settings(evaluate={"num_thresholds": 5, "batch_size": 7})
    two = open_and_close(tmp_path / "two", fewer)
    assert one.training_digest == two.training_digest
    assert one.evaluation_digest != two.evaluation_digest
