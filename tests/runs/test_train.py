"""The members of a run: what each begins with, and which parameters are kept."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from dense_model import init_dense_params, make_dense_model

from sweet_jax.analysis.analysis import AnalysisInputs
from sweet_jax.analysis.registry import Analyses
from sweet_jax.arrays import Params
from sweet_jax.evaluation.metrics import score_exits_alone
from sweet_jax.runs import train
from sweet_jax.runs.inputs import Prepared, prepare
from sweet_jax.runs.train import join_params, keep_layers, split_params, train_members
from sweet_jax.runs.workdir import Workdir
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.loop import Progress
from sweet_jax.training.member_training import MemberTraining
from sweet_jax.trees import flatten_paths
from tests.exit_banks import make_bank


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


class Watched(Analyses):
    """No analysis; tells whose steps it was asked about, and whether training ended."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        super().__init__(
            AnalysisInputs(prepared.settings, prepared.trainings, folder, True)
        )
        self.members: list[str] = []
        self.finished = 0

    def find_calls(self, member: str) -> dict[int, Any]:
        """Returns none."""
        self.members.append(member)
        return super().find_calls(member)

    def finish(self) -> None:
        """Counts."""
        self.finished += 1


@pytest.fixture
def dense(tiny_config) -> Prepared:
    """The tiny task for a model that compiles at once: 3 epochs of 5 steps."""
    tiny_config["data"]["buckets"] = (16,)
    tiny_config["train"] |= {"num_epochs": 3, "checkpoint_every_steps": 100}
    return make_dense(tiny_config)


def make_dense(config: dict[str, Any]) -> Prepared:
    prepared = prepare(from_config_dict(config))
    model = make_dense_model()
    loaded = dataclasses.replace(
        prepared.loaded, encoder=init_dense_params(model)["encoder"], pooler=None
    )
    return dataclasses.replace(prepared, models=(model,), loaded=loaded)


def run(prepared: Prepared, folder: Path) -> tuple[Params, Watched]:
    work = Workdir(folder, prepared.settings, prepared.inputs, True)
    watched = Watched(prepared, folder)
    try:
        return train_members(prepared, work, watched, quiet=True), watched
    finally:
        work.close()


def count_rows(folder: Path) -> int:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return sum("loss" in json.loads(line) for line in lines)


def test_a_finished_training_is_restored(dense, tmp_path):
    params, watched = run(dense, tmp_path / "run")
    assert (watched.members, watched.finished) == ([""], 1)
    assert count_rows(tmp_path / "run") == 15
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
    # The newest checkpoint alone stays, of all that training made.
    steps = tmp_path / "run" / "checkpoints" / "model" / "steps"
    assert [path.name for path in steps.iterdir()] == ["15"]
    again, _ = run(dense, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert count_rows(tmp_path / "run") == 15, "no step was taken again"


def test_the_best_epoch_on_part_0_is_kept(tiny_config, tmp_path, monkeypatch):
    tiny_config["data"]["buckets"] = (16,)
    tiny_config["train"] |= {"num_epochs": 3, "select": "best"}
    prepared = make_dense(tiny_config)
    seen: list[Params] = []
    asked = []

    class Bank:
        def select_part(self, part: int) -> str:
            asked.append(part)
            return "the rows of that part"

    class Collector:
        def __init__(self, *args: Any) -> None:
            pass

        def collect(self, params: Params, rows: Any, part: Any) -> Bank:
            assert rows is prepared.rows["calibration"]
            assert part is prepared.splits.part
            seen.append(jax.tree.map(np.array, params))
            return Bank()

    scores = iter([0.25, 0.75, 0.5])
    monkeypatch.setattr(train, "Collector", Collector)
    monkeypatch.setattr(train, "score_exits_alone", lambda *_: next(scores))
    params, _ = run(prepared, tmp_path / "run")
    assert asked == [0, 0, 0]
    jax.tree.map(np.testing.assert_array_equal, params, seen[1])
    assert any(
        (one != other).any()
        for one, other in zip(
            jax.tree.leaves(params), jax.tree.leaves(seen[2]), strict=True
        )
    )


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "auto"])
def test_the_best_epoch_is_that_of_data_metric(tiny_config, monkeypatch, metric):
    tiny_config["data"]["metric"] = metric
    prepared = prepare(from_config_dict(tiny_config))
    bank = make_bank(np.random.default_rng(0), noise=3.0)
    bank.labels[bank.labels == 2] = 1  # Unequal classes: metrics differ.
    monkeypatch.setattr(train.Collector, "collect", lambda *_: bank)
    score = train._make_selection_score(prepared, prepared.models[0])({})
    part_0 = bank.select_part(0)
    name = "accuracy" if metric == "auto" else metric
    assert score == score_exits_alone(name, part_0)
    others = {"accuracy", "macro_f1", "balanced_accuracy"} - {name}
    assert score not in {score_exits_alone(other, part_0) for other in others}


def test_no_epoch_is_best_without_labels(tiny_config):
    tiny_config["data"]["calibration_examples"] = 0
    tiny_config["train"]["select"] = "best"
    with pytest.raises(ValueError, match=r"select=best .* give data.validation_file"):
        prepare(from_config_dict(tiny_config))


@pytest.mark.parametrize("source", ["checkpoint", "fresh"])
def test_members_begin_with_their_layers_of_the_checkpoint(
    tiny_config, tmp_path, monkeypatch, source
):
    tiny_config["exits"]["pooler_init"] = source
    prepared = prepare(from_config_dict(tiny_config | {"method": "multi_model"}))
    begun: list[tuple[str, Params]] = []

    def keep(
        training: MemberTraining,
        params: Params,
        store: Any,
        progress: Progress,
        start_fn: Any,
    ) -> Params:
        assert start_fn is None, "exits.init=random"
        begun.append((training.member.name, params))
        progress.metrics_path.touch()
        store.save(1, {"step": np.array(1)})
        return params

    monkeypatch.setattr(train, "train_member", keep)
    joined, watched = run(prepared, tmp_path / "run")
    names = ["member_0", "member_1", "member_2"]
    assert [name for name, _ in begun] == watched.members == names
    assert watched.finished == 1
    folders = (tmp_path / "run" / "checkpoints").glob("*/steps/1")
    assert sorted(folder.parts[-3] for folder in folders) == names
    for name, params in begun:
        jax.tree.map(
            np.testing.assert_array_equal, split_params(joined, names)[name], params
        )
    whole = flatten_paths(prepared.loaded.encoder)
    for (_, params), depth in zip(begun, (1, 2, 4), strict=True):
        layers = [name for name in params["encoder"] if name.startswith("layer_")]
        assert sorted(layers) == [f"layer_{i}" for i in range(depth)]
        for path, leaf in flatten_paths(params["encoder"]).items():
            np.testing.assert_array_equal(leaf, whole[path])
        (head,) = params["exits"].values()
        is_loaded = np.array_equal(
            head["pooler"]["kernel"], prepared.loaded.pooler["kernel"]
        )
        assert is_loaded == (source == "checkpoint")


def test_fresh_exits_follow_from_the_seed(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train_member", lambda training, params, *_: params)

    def begin(seed: int, folder: str) -> np.ndarray:
        settings = dataclasses.replace(dense.settings, seed=seed)
        prepared = dataclasses.replace(dense, settings=settings)
        params, _ = run(prepared, tmp_path / folder)
        return params["exits"]["exit_0"]["classifier"]["kernel"]

    np.testing.assert_array_equal(begin(0, "one"), begin(0, "same"))
    assert (begin(0, "one") != begin(1, "other")).any()


def test_a_single_model_is_served_as_it_is_and_several_by_their_names():
    one, two = {"exits": 1}, {"exits": 2}
    assert join_params([one]) is one
    assert split_params(one, [""]) == {"": one}
    joined = join_params([one, two])
    assert joined == {"member_0": one, "member_1": two}
    assert split_params(joined, ["member_0", "member_1"]) == joined


def test_layers_above_the_last_one_are_dropped():
    encoder: Params = {name: {} for name in ("embeddings", "tables")}
    encoder |= {f"layer_{i}": {} for i in range(12)}
    for num_layers in (1, 2, 11, 12):
        kept = keep_layers(encoder, num_layers)
        assert kept.keys() == {"embeddings", "tables"} | {
            f"layer_{i}" for i in range(num_layers)
        }
