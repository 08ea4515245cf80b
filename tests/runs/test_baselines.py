"""The baselines of a run are measured once, and change nothing that is trained."""

import json
from typing import Any

import numpy as np
import pytest

from sweet_jax.runs import evaluate, pipeline
from sweet_jax.runs.baselines import measure_run_baselines
from sweet_jax.runs.inputs import prepare
from sweet_jax.settings.from_config import from_config_dict


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


@pytest.mark.slow
def test_baselines_are_measured_once(
    tiny_config: dict[str, Any], tmp_path, monkeypatch
):
    tiny_config["exits"]["layers"] = (0, 1)
    tiny_config["data"]["buckets"] = (16,)
    tiny_config["evaluate"] |= {"criteria": ("confidence",)}
    path, without = pipeline.run(
        from_config_dict(tiny_config), tmp_path / "run", quiet=True
    )
    assert without["baselines"] is None
    assert not (path / "baselines.json").exists()
    scores = [row["score"] for row in without["exits"]]

    # Turning them on measures them, and nothing else changes.
    tiny_config["evaluate"]["baselines"] = True
    settings = from_config_dict(tiny_config)
    _, results = pipeline.run(settings, path, quiet=True)
    found = results["baselines"]
    assert found == json.loads((path / "baselines.json").read_text())
    assert [row["score"] for row in results["exits"]] == scores
    expected = measure_run_baselines(prepare(settings))
    assert expected is not None
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    assert [row["layer"] for row in found["frozen"]] == [0, 1]
    assert found["majority"]["score"] == results["majority"]
    assert found["tfidf"]["score"] > 0.7  # One word tells the class.

    # A changed evaluation and a repeated training read them again.
    monkeypatch.setattr(pipeline, "measure_run_baselines", None)
    tiny_config["evaluate"]["num_thresholds"] = 5
    settings = from_config_dict(tiny_config)
    assert pipeline.run(settings, path, quiet=True)[1]["baselines"] == found
    (path / "metrics.jsonl").unlink()
    assert pipeline.run(settings, path, quiet=True)[1]["baselines"] == found

    # They are of the run's own test rows.
    results, _ = evaluate.evaluate_on(path, settings.data.test_file)
    assert results["baselines"] is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sweet", "early_exit", "multi_model"])
def test_every_method_has_the_same_baselines(tiny_config, method):
    """Not the method but rows, encoder, exits and pooling decide."""
    tiny_config["method"] = method
    tiny_config["evaluate"]["baselines"] = True
    prepared = prepare(from_config_dict(tiny_config))
    states = prepared.collect_frozen("train")
    found = measure_run_baselines(prepared)
    assert found is not None
    assert len(found["frozen"]) == len(states) == 3
    whole = prepare(from_config_dict({**tiny_config, "method": "early_exit"}))
    for one, other in zip(states, whole.collect_frozen("train"), strict=True):
        np.testing.assert_array_equal(one, other)
