"""Analyses of other packages: registered, measured on time, kept, and shown."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from dense_model import (
    EXIT_LAYERS,
    init_dense_params,
    make_dense_model,
    make_rows,
    train_dense,
)

import sweet_jax
from sweet_jax import report
from sweet_jax.analysis.analysis import Analysis, AnalysisInputs
from sweet_jax.analysis.registry import Analyses
from sweet_jax.arrays import Params
from sweet_jax.runs import pipeline
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.registries import ANALYSES, METHODS
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.files import write_json
from sweet_jax.training.loop import Progress, train_member
from sweet_jax.training.member_training import MemberTraining, TrainData
from sweet_jax.training.methods import make_early_exit, make_members
from sweet_jax.trees import flatten_paths


class WeightNorm(Analysis):
    """An analysis of somebody else: the norm of all parameters, member by member."""

    files: ClassVar[tuple[str, ...]] = ("weight_norm.json",)

    def __init__(self, inputs: AnalysisInputs) -> None:
        self._inputs = inputs
        self._path = inputs.workdir / self.files[0]
        # None where training had passed the step.
        self.norms: dict[str, float | None] = (
            json.loads(self._path.read_text()) if self._path.exists() else {}
        )

    def find_open_steps(self, member: str) -> frozenset[int]:
        """Returns the wanted steps that the file lacks."""
        last = {t.member.name: t.num_steps for t in self._inputs.trainings}[member]
        steps = (
            round(last * percent / 100)
            for percent in self._inputs.settings.analysis.steps_percent
        )
        return frozenset(s for s in steps if f"{member}@{s}" not in self.norms)

    def measure(self, member: str, step: int, params: Params) -> None:
        """Adds a norm to the file."""
        squares = (float((np.asarray(x) ** 2).sum()) for x in jax.tree.leaves(params))
        self.norms[f"{member}@{step}"] = float(np.sqrt(sum(squares)))
        self._write()

    def finish(self) -> None:
        """Writes which steps are missing."""
        for training in self._inputs.trainings:
            name = training.member.name
            for step in self.find_open_steps(name):
                self.norms[f"{name}@{step}"] = None
        self._write()

    def summarize(self) -> dict[str, Any]:
        """Returns the norms."""
        return {f"norm {k}": norm for k, norm in self.norms.items() if norm is not None}

    def _write(self) -> None:
        if self._inputs.writes:
            write_json(self._path, self.norms)


@pytest.fixture(autouse=True)
def registry(monkeypatch, shared_cache) -> None:
    """Whatever a test registers is forgotten after it."""
    for registry in (ANALYSES, METHODS):
        monkeypatch.setattr(registry, "_values", dict(registry._values))
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


def make_settings(names: tuple[str, ...] = ("weight_norm",), **config: Any) -> Settings:
    """Returns settings of 6 steps of the dense model."""
    return from_config_dict(
        {
            "method": "early_exit",
            "exits": {"layers": EXIT_LAYERS},
            "train": {"batch_size": 5, "num_epochs": 2, "checkpoint_every_steps": 1},
            "analysis": {"names": names, "steps_percent": (0, 50, 100)},
            **config,
        }
    )


def make_inputs(settings: Settings, workdir: Path) -> AnalysisInputs:
    """Returns what an analysis gets of a training of the dense model."""
    data = TrainData(make_rows(), (8,), 0)
    trainings = tuple(
        MemberTraining(make_dense_model(), member, data, settings)
        for member in make_members(settings, len(EXIT_LAYERS))
    )
    return AnalysisInputs(settings, trainings, workdir, writes=True)


class NoStore:
    """Keeps no state."""

    def save(self, step: int, state: Any) -> None:
        """Drops it."""

    def restore_newest(self, make_target: Any) -> None:
        """There is none."""


@pytest.mark.slow
def test_a_registered_analysis_is_called_at_its_steps_and_changes_nothing(tmp_path):
    sweet_jax.register_analysis("weight_norm", WeightNorm)
    settings = make_settings()
    inputs = make_inputs(settings, tmp_path)
    analyses = Analyses(inputs)
    assert analyses.open_names == ("weight_norm",)
    calls = analyses.find_calls("")
    assert sorted(calls) == [0, 3, 6]
    start = init_dense_params(make_dense_model())
    progress = Progress(tmp_path / "metrics.jsonl", quiet=True, at_steps=calls)
    params = train_member(inputs.trainings[0], start, NoStore(), progress)
    analyses.finish()
    summary = analyses.summarize()["weight_norm"]
    norm = np.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(params)))
    assert summary["norm @6"] == pytest.approx(float(norm), rel=1e-6)
    assert len({round(value, 4) for value in summary.values()}) == 3
    # Another process finds it all done, from the analysis's own file.
    again = Analyses(inputs)
    assert again.open_names == ()
    assert again.summarize() == analyses.summarize()

    plain = train_dense(tmp_path / "plain", method="early_exit")
    for path, leaf in flatten_paths(params).items():
        np.testing.assert_array_equal(leaf, plain.params[path], err_msg=path)


def test_analyses_at_one_step_are_all_called_and_a_late_one_gets_the_last_step(
    tmp_path,
):
    seen: list[tuple[str, str, int]] = []

    class Seeing(Analysis):
        def __init__(self, inputs: AnalysisInputs) -> None:
            self.open = {0, 6}

        def find_open_steps(self, member: str) -> frozenset[int]:
            return frozenset(self.open)

        def measure(self, member: str, step: int, params: Params) -> None:
            seen.append((member, jax.tree.leaves(params)[0].device.platform, step))
            self.open.discard(step)

        def finish(self) -> None:
            self.open.clear()

    sweet_jax.register_analysis("one")(Seeing)
    sweet_jax.register_analysis("two", Seeing)
    analyses = Analyses(make_inputs(make_settings(("one", "two")), tmp_path))
    start = init_dense_params(make_dense_model())
    analyses.find_calls("")[0](0, jax.device_put(start, jax.devices()[0]))
    assert seen == [("", "cpu", 0)] * 2
    assert analyses.open_names == ("one", "two")
    seen.clear()
    analyses.measure_trained({"": start})
    assert [step for _, _, step in seen] == [6, 6]
    assert analyses.open_names == ()
    assert analyses.summarize() == {}, "they say nothing of themselves"


@pytest.mark.parametrize(
    ("name", "analysis", "message"),
    [
        ("gradient_conflict", WeightNorm, "is registered already: choose another name"),
        ("weight_norm", WeightNorm, "'weight_norm' is registered already"),
        ("Weight norm", WeightNorm, "up to 64 lower-case letters"),
        ("half", "WeightNorm", "analysis 'half' is a str: register a subclass of"),
    ],
)
def test_a_name_that_is_taken_or_no_analysis_is_refused(name, analysis, message):
    sweet_jax.register_analysis("weight_norm", WeightNorm)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        sweet_jax.register_analysis(name, analysis)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_what_does_not_fit_are_one_line(tmp_path):
    sweet_jax.register_analysis("weight_norm", WeightNorm)
    with pytest.raises(SettingsError, match=r"did you mean weight_norm\?"):
        make_settings(("weight_nrom",))
    with pytest.raises(SettingsError, match="models of method=multi_model share no"):
        make_settings(("gradient_conflict",), method="multi_model")

    sweet_jax.register_analysis("same_file", lambda inputs: WeightNorm(inputs))
    with pytest.raises(SettingsError, match=r"both write weight_norm\.json: ask for"):
        Analyses(make_inputs(make_settings(("weight_norm", "same_file")), tmp_path))

    sweet_jax.register_analysis("none", lambda inputs: None)
    with pytest.raises(SettingsError, match="'none' makes a NoneType, expected a"):
        Analyses(make_inputs(make_settings(("none",)), tmp_path))

    class Arrays(WeightNorm):
        def summarize(self) -> dict[str, Any]:
            return {"norms": np.ones(2)}

    sweet_jax.register_analysis("arrays", Arrays)
    analyses = Analyses(make_inputs(make_settings(("arrays",)), tmp_path))
    with pytest.raises(SettingsError, match=r"'arrays' cannot be written as JSON \(Ob"):
        analyses.summarize()


def test_gradient_conflict_refuses_a_registered_method_of_separate_models(tmp_path):
    def make_separate(settings: Settings, num_exits: int) -> Any:
        return make_members(from_config_dict({"method": "multi_model"}), num_exits)

    sweet_jax.register_method("separate", make_separate)
    settings = make_settings(("gradient_conflict",), method="separate")
    with pytest.raises(SettingsError, match="models of method=separate share no weigh"):
        Analyses(make_inputs(settings, tmp_path))


@pytest.mark.slow
def test_a_run_with_a_method_and_an_analysis_of_others(tiny_config, tmp_path):
    sweet_jax.register_analysis("weight_norm", WeightNorm)
    sweet_jax.register_method("mine", make_early_exit)
    tiny_config["method"] = "mine"
    tiny_config["data"]["buckets"] = (16,)
    tiny_config["evaluate"]["criteria"] = ("confidence",)
    measured = {**tiny_config, "analysis": {"names": ("weight_norm",)}}
    path, results = pipeline.run(from_config_dict(measured), tmp_path / "run", True)
    assert results["method"] == results["method_label"] == "mine"
    norms = results["analyses"]["weight_norm"]
    assert sorted(norms) == [f"norm @{step}" for step in (0, 10, 2, 5, 8)]
    assert json.loads((path / "weight_norm.json").read_text()) == {
        name.removeprefix("norm "): norm for name, norm in norms.items()
    }
    page = (path / "report.html").read_text()
    assert "Analysis weight_norm" in page
    assert "<h1>mine on " in page
    assert "weight_norm: norm @0" in report.format_run(path)

    # Asked for when training is over: the last step, and the results have it, too.
    plain, _ = pipeline.run(from_config_dict(tiny_config), tmp_path / "plain", True)
    for name in ("logits_test.npz", "curves.npz"):
        with np.load(path / name) as one, np.load(plain / name) as two:
            for key in one.files:
                np.testing.assert_array_equal(one[key], two[key])
    _, late = pipeline.run(from_config_dict(measured), plain, True)
    assert late["analyses"] == {"weight_norm": {"norm @10": norms["norm @10"]}}
    assert "Analysis weight_norm" in (plain / "report.html").read_text()
    written = (plain / "report.html").stat().st_mtime_ns
    pipeline.run(from_config_dict(measured), plain, True)
    assert (plain / "report.html").stat().st_mtime_ns == written, "nothing was to do"

    # Each model of its own is measured, and paid for by the cascade.
    sweet_jax.register_method(
        "separate",
        lambda settings, n: make_members(
            from_config_dict({"method": "multi_model"}), n
        ),
    )
    tiny_config["method"] = "separate"
    measured["analysis"]["steps_percent"] = (100,)
    path, results = pipeline.run(
        from_config_dict({**measured, "method": "separate"}), tmp_path / "sets", True
    )
    assert sorted(results["analyses"]["weight_norm"]) == [
        f"norm member_{i}@10" for i in range(3)
    ]
    assert "sum_{j<=i}" in results["cost_formula"]
    assert [row["cost_fraction"] for row in results["exits"]] == [0.25, 0.75, 1.75]
