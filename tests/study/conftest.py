"""What the tests of this folder share."""

import shutil
from pathlib import Path

import pytest
from study_files import make_study


@pytest.fixture(scope="session")
def unchanged(tmp_path_factory) -> Path:
    """A study of one task: two methods, three seeds; tests copy it."""
    folder = tmp_path_factory.mktemp("unchanged") / "study"
    return make_study(folder, ("sweet", "early_exit"))


@pytest.fixture
def small(unchanged: Path, tmp_path: Path) -> Path:
    """The same to be changed."""
    return Path(shutil.copytree(unchanged, tmp_path / "study"))
