"""Exits that start as probes: under every method, in every family, and resumed."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from dense_model import (
    assert_same_training,
    compile_once,
    copy_up_to,
    init_dense_params,
    make_dense_training,
    probe_dense,
    train_dense,
)
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sweet_jax.analysis.analysis import AnalysisInputs
from sweet_jax.analysis.registry import Analyses
from sweet_jax.arrays import Params
from sweet_jax.evaluation import probes
from sweet_jax.evaluation.collect import Collector
from sweet_jax.runs import train
from sweet_jax.runs.inputs import Prepared, prepare
from sweet_jax.runs.probe_exits import probe_exits
from sweet_jax.runs.train import make_initial_params, train_members
from sweet_jax.runs.workdir import Workdir
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.registries import BUILTIN_METHODS
from sweet_jax.training.loop import Start
from sweet_jax.training.member_training import MemberTraining
from sweet_jax.training.metrics_log import TrainingCost, read_cost
from sweet_jax.trees import flatten_paths


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Trainings that repeat each other compile once."""
    with compile_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


@pytest.mark.parametrize(
    ("family", "method", "exits", "dtype"),
    [
        ("bert", "sweet", {"pooling": "cls", "learn_to_exit": True}, "float32"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("modernbert", "multi_model", {}, "float32"),
                ("bert", "weighted", {}, "bfloat16"),
                ("roberta", "alternating", {}, "float32"),
                ("mpnet", "sweet", {}, "float32"),
                ("deberta", "two_stage", {"pooling": "cls"}, "float32"),
                ("deberta-v2", "gradient_equilibrium", {}, "float32"),
                ("modernbert", "self_distill", {"pooling": "cls"}, "float32"),
            )
        ),
    ],
)
def test_every_exit_starts_as_the_regression_of_its_states(
    make_tiny_encoder, tiny_config, monkeypatch, family, method, exits, dtype
):
    tiny_config["encoder"] = {"name": str(make_tiny_encoder(family)), "dtype": dtype}
    tiny_config["exits"] |= {"init": "probe", **exits}
    monkeypatch.setattr(probes, "_choose_strength", lambda *_: 0.1)
    prepared = prepare(from_config_dict(tiny_config | {"method": method}))
    rows = prepared.rows["train"]
    wanted, bounds = [], []
    for states_ND in prepared.collect_frozen("train"):
        z_ND = StandardScaler().fit_transform(states_ND.astype(np.float64))
        model = LogisticRegression(C=0.1, tol=1e-6).fit(z_ND, rows.labels)
        wanted.append(model.decision_function(z_ND))
        bounds.append(np.abs(z_ND) ** 3 @ np.abs(model.coef_[0]) / 27)
    found: list[np.ndarray] = []
    for training in prepared.trainings:
        initial = make_initial_params(prepared, training.model)
        begun = probe(prepared, training, initial, 0)
        # Of its own encoder, which is the published one.
        again = probe(prepared, training, initial, 1)
        for one, other in zip(
            jax.tree.leaves(begun.params), jax.tree.leaves(again.params), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        changed = {
            path
            for path, leaf in flatten_paths(begun.params).items()
            if (leaf != flatten_paths(initial)[path]).any()
        }
        assert changed == {
            f"exits/exit_{i}/{part}"
            for i in training.model.exit_numbers
            for part in (
                *("pooler/kernel", "pooler/bias"),
                *("classifier/kernel", "classifier/bias"),
            )
        }
        assert again.cost["flops"] > 0
        bank = Collector(training.model, 16, (16,), 0).collect(begun.params, rows)
        found += [*(bank.logits[..., 1] - bank.logits[..., 0]).T]
    assert len(found) == len(wanted) == 3
    # bfloat16 keeps three digits of the states and of the pooler's weights.
    tolerance = 5e-3 if dtype == "float32" else 0.1
    for logits_N, wanted_N, bound_N in zip(found, wanted, bounds, strict=True):
        assert (np.abs(logits_N - wanted_N) <= bound_N + tolerance).all()
        assert np.mean((logits_N > 0) == (wanted_N > 0)) > 0.9
        assert np.std(wanted_N) > 0.3


@pytest.mark.parametrize(
    "method",
    [
        name if name == "sweet" else pytest.param(name, marks=pytest.mark.slow)
        for name in BUILTIN_METHODS
        if name != "multi_model"  # Its members are trained below.
    ],
)
def test_a_probed_training_repeats_and_resumes_bit_for_bit(method, tmp_path):
    config = {"method": method, "exits": {"init": "probe"}}
    whole = train_dense(tmp_path / "whole", start_fn=probe_dense, **config)
    again = train_dense(tmp_path / "again", start_fn=probe_dense, **config)
    assert_same_training(whole, again)
    part = copy_up_to(whole, tmp_path / "part", 2)
    assert_same_training(whole, train_dense(part, start_fn=refuse, **config))


@pytest.mark.parametrize(
    "method", ["sweet", pytest.param("two_stage", marks=pytest.mark.slow)]
)
def test_exits_start_anew_after_a_contrastive_phase_also_when_resumed(method, tmp_path):
    config = {
        "method": method,
        "exits": {"init": "probe"},
        "train": {"num_epochs": 1, "contrastive_epochs": 1},
        "optim": {"contrastive_learning_rate": 1e-2},
    }
    begun: list[dict[str, np.ndarray]] = []

    def begin(training: MemberTraining, params: Params, step: int) -> Start:
        found = probe_dense(training, params, step)
        begun.append(flatten_paths(found.params))
        return found

    whole = train_dense(tmp_path / "whole", start_fn=begin, **config)
    first, second = begun
    for path, leaf in first.items():
        # The phase moves the encoder, and no exit; the second probes are of its states.
        assert (leaf != second[path]).any(), path
    for step in (2, 3, 4):
        begun.clear()
        part = copy_up_to(whole, tmp_path / f"part_{step}", step)
        assert_same_training(whole, train_dense(part, start_fn=begin, **config))
        assert len(begun) == (step <= 3)
        for found in begun:
            for path, leaf in found.items():
                np.testing.assert_array_equal(leaf, second[path])
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    starts = [r for r in map(json.loads, lines) if r.get("cost", {}).get("phase") == -1]
    assert [row["step"] for row in starts] == [0, 3]
    assert read_cost(tmp_path / "whole" / "metrics.jsonl").start_seconds == sum(
        row["cost"]["seconds"] for row in starts
    )


def probe(
    prepared: Prepared, training: MemberTraining, params: Params, step: int
) -> Start:
    return probe_exits(
        training, prepared.frozen_states, lambda: prepared.frozen_probes, params, step
    )


@pytest.mark.slow
def test_copies_of_shared_tables_are_read_by_their_own_segments(
    make_tiny_encoder, tiny_config
):
    tiny_config["encoder"] = {"name": str(make_tiny_encoder("mpnet"))}
    tiny_config["exits"] |= {"init": "probe"}
    prepared = prepare(from_config_dict(tiny_config | {"method": "sweet"}))
    (training,) = prepared.trainings
    params = jax.device_get(make_initial_params(prepared, training.model))
    before = probe(prepared, training, params, 1).params["exits"]
    copies = sorted(
        {
            path.split("/")[0]
            for path in flatten_paths(params["encoder"])
            if path.startswith("shared_")
        }
    )
    assert len(copies) == 3
    changed = {
        **params["encoder"],
        copies[1]: jax.tree.map(lambda x: 20 * x + 1, params["encoder"][copies[1]]),
    }
    after = probe(prepared, training, {**params, "encoder": changed}, 1).params["exits"]
    is_same = [
        (
            before[f"exit_{i}"]["classifier"]["kernel"]
            == after[f"exit_{i}"]["classifier"]["kernel"]
        ).all()
        for i in range(3)
    ]
    assert is_same == [True, False, False]


def refuse(*_: Any) -> Start:
    raise AssertionError("a checkpoint is restored: nothing is fitted")


def test_devices_and_parts_of_a_batch_change_rounding_only():
    def begin(**fields: int) -> dict[str, np.ndarray]:
        training = make_dense_training(train=fields)
        params = init_dense_params(training.model)
        return flatten_paths(jax.device_get(probe_dense(training, params, 0).params))

    one = begin(batch_size=5)  # One device; a batch of 8 is cut over four.
    for other in (begin(batch_size=8), begin(batch_size=8, accumulate_steps=4)):
        for path, leaf in one.items():
            np.testing.assert_allclose(other[path], leaf, atol=1e-3, err_msg=path)


def run(prepared: Prepared, folder: Path) -> tuple[Params, TrainingCost]:
    work = Workdir(folder, prepared.settings, prepared.inputs, True)
    inputs = AnalysisInputs(prepared.settings, prepared.trainings, folder, True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)  # As the pipeline does.
    try:
        params = train_members(prepared, work, Analyses(inputs), quiet=True)
    finally:
        work.close()
    return params, read_cost(folder / "metrics.jsonl")


@pytest.mark.slow
def test_each_member_is_probed_once_and_its_cost_is_kept(
    tiny_config, tmp_path, monkeypatch
):
    tiny_config["exits"]["init"] = "probe"
    tiny_config["data"]["buckets"] = (16,)
    settings = from_config_dict(tiny_config | {"method": "multi_model"})
    whole, cost = run(prepare(settings), tmp_path / "whole")
    assert cost.start_seconds > 0
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    costs = [row["cost"] for row in map(json.loads, lines) if "cost" in row]
    starts = [c["flops"] for c in costs if c["phase"] == -1]
    assert starts[0] > 0
    assert starts[1:] == [0, 0], "members share what the first one needs"
    names: list[str] = []

    def stop_in_the_second(training: Any, *args: Any) -> Start:
        names.append(training.member.name)
        if names == ["member_0", "member_1"]:
            raise KeyboardInterrupt
        return probe_exits(training, *args)

    monkeypatch.setattr(train, "probe_exits", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(prepare(settings), tmp_path / "part")
    params, resumed_cost = run(prepare(settings), tmp_path / "part")
    assert names == ["member_0", "member_1", "member_1", "member_2"]
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    assert resumed_cost.flops == cost.flops + starts[0], "another process, once more"
    tiny_config["exits"]["init"] = "random"
    drawn = prepare(from_config_dict(tiny_config | {"method": "multi_model"}))
    _, drawn_cost = run(drawn, tmp_path / "drawn")
    assert drawn_cost.flops < cost.flops
    assert drawn_cost.start_seconds == 0
    assert '"phase": -1' not in (tmp_path / "drawn" / "metrics.jsonl").read_text()
    assert costs[0]["phase"] == -1
