"""A study of two tasks, reported once for all tests of its report."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from study_files import (
    METHODS,
    make_entry,
    make_study,
    write_plan,
    write_status,
)
from study_records import make_rates

from sweet_jax.report import (
    read_study_record,
)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> tuple[Path, list[str]]:
    """A study of two tasks, reported by its command; what it printed."""
    folder = tmp_path_factory.mktemp("written") / "study"
    choice = {
        "task": "rte",
        "encoder": "tiny",
        "train_size": 1000,
        "method": "sweet",
        "tried": [
            make_rates(1e-4) | {"score": 0.71},
            make_rates(3e-4) | {"score": 0.72},
        ],
        "chosen": make_rates(3e-4),
    }
    pair = make_rates(1e-4, 1e-3)
    both = choice | {"tried": [pair | {"score": 0.73}], "chosen": pair}
    make_study(
        folder,
        METHODS,
        seeds=(0, 1),
        tasks=("rotten_tomatoes", "rte"),
        sizes=(250,),
        choices=[choice, both],
    )
    plan = json.loads((folder / "plan.json").read_text())
    failed, missing = (make_entry("rte", 250, "sweet", seed) for seed in (7, 8))
    write_status(folder / "cells" / failed["name"], "failed", "the loss is not finite")
    write_plan(folder, [*plan["cells"], failed, missing], plan["choices"])
    printed = subprocess.run(
        [sys.executable, "-m", "sweet_jax", "study", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    return folder, printed.splitlines()


@pytest.fixture
def record(written: tuple[Path, list[str]]) -> dict[str, Any]:
    """Its study.json, to be changed."""
    return read_study_record(written[0])
