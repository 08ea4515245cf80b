"""A short part of the attacks on readers, of which the tool runs the long one."""

import pytest
from campaign.fuzz import run_trials
from campaign.readers import READERS
from campaign.seeds import Seeds, make_seeds


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, shared_cache) -> Seeds:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEET_JAX_CACHE", str(shared_cache))
        return make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(100, marks=pytest.mark.slow),
        pytest.param(2000, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_or_refused_in_one_line(
    seeds, shared_cache, monkeypatch, tmp_path, name, count
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    trials = list(run_trials(READERS[name], seeds, tmp_path, 0, count))
    assert [trial for trial in trials if not trial.is_good] == []
    # A reader that refuses everything would do, too.
    assert "read" in {trial.outcome for trial in trials}
