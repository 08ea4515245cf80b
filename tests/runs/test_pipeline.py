"""The pipeline on a tiny real encoder and task: stages, resuming, ownership."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tiny_encoders import make_sentences

import sweet_jax
from sweet_jax.arrays import LogitBank
from sweet_jax.evaluation.cascade import choose_exits
from sweet_jax.exits.criteria import FULL, compute_scores
from sweet_jax.exits.temperatures import (
    RELEASED_RANGE,
    apply_temperatures,
    fit_temperatures,
)
from sweet_jax.report import format_summary
from sweet_jax.runs import evaluate, pipeline
from sweet_jax.runs.inputs import prepare
from sweet_jax.runs.workdir import WorkdirError
from sweet_jax.serving.model_folder import ModelFolderError
from sweet_jax.serving.predict_job import predict_file
from sweet_jax.serving.predict_options import PredictOptions
from sweet_jax.settings import registries
from sweet_jax.settings.fields import AnalysisSettings, Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.training.checkpoint import Checkpoints
from sweet_jax.training.finite import NonFiniteError
from sweet_jax.trees import flatten_paths

SLOW, LONG = pytest.mark.slow, pytest.mark.long
ARTEFACTS = (
    "config.json versions.json metrics.jsonl logits_calibration.npz logits_test.npz"
    " curves.npz results.json report.html model/model.json model/params.safetensors"
    " model/checksums.json model/calibration.npz plots/speed_accuracy.png"
)


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


@pytest.fixture
def config(tiny_config: dict[str, Any]) -> dict[str, Any]:
    """Two layers, two exits, one length: one small program each."""
    tiny_config["exits"]["layers"] = (0, 1)
    tiny_config["data"]["buckets"] = (16,)
    return tiny_config


def change(config: dict[str, Any], **sections: Any) -> Settings:
    merged = {
        name: {**config[name], **value}
        if name in config and name != "method"
        else value
        for name, value in sections.items()
    }
    return from_config_dict({**config, **merged})


def read_metrics(path: Path) -> list[tuple[str, int, list[float]]]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(r["member"], r["step"], r["loss"]) for r in rows if "loss" in r]


@pytest.mark.parametrize(
    "method",
    [
        "sweet",
        pytest.param("multi_model", marks=SLOW),
        pytest.param("early_exit", marks=LONG),
    ],
)
def test_run_leaves_all_artefacts_and_a_classifier(config, tmp_path, method):
    settings = change(config, method=method, evaluate={"measure_costs": True})
    path, results = pipeline.run(settings, tmp_path / "run", quiet=True)
    assert not [name for name in ARTEFACTS.split() if not (path / name).exists()]
    assert results == json.loads((path / "results.json").read_text())
    assert results["splits"] == {"train": 40, "calibration": 24, "test": 50}
    assert results["truncated_rows"]["train"] == 0
    assert results["training_flops"] > 0
    whole = 1.5 if method == "multi_model" else 1.0
    assert [row["cost_fraction"] for row in results["exits"]] == [0.5, whole]
    costs = results["costs"]
    # A layer is most of a segment's arithmetic: exits and embeddings are the rest.
    np.testing.assert_allclose(costs["flops"], [0.5, whole], atol=0.1)
    assert 0 < costs["seconds"][0] < costs["seconds"][1]
    assert [row["length"] for row in costs["segments"]] == [16]

    # The same command again finds it finished and writes nothing.
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*.*") if p.is_file()}
    assert pipeline.run(settings, path, quiet=True)[1] == results
    assert {p: p.stat().st_mtime_ns for p in before} == before

    # The classifier answers as the cascade on the bank says.
    bank = LogitBank.load(path / "logits_test.npz")
    lines = Path(settings.data.test_file).read_text().splitlines()
    texts = [json.loads(line)["sentence"] for line in lines]
    classifier = sweet_jax.load(path / "model")
    assert method in repr(classifier)
    temperatures = np.array(classifier.description.temperatures, np.float32)
    logits = apply_temperatures(bank.logits, temperatures)
    scores = compute_scores("confidence", logits)
    middle = float(np.median(np.asarray(scores)[:, 0])) + 1e-4
    exits = np.asarray(choose_exits(scores, np.array([middle], np.float32)))[0]
    answers = classifier.predict(texts, threshold=middle)
    assert {0, 1} == {a.exit for a in answers}
    assert [a.exit for a in answers] == exits.tolist()
    for answer, row, i in zip(answers, np.asarray(logits), exits, strict=True):
        assert answer.label == classifier.label_names[row[i].argmax()]
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-6)
    assert {a.exit for a in classifier.predict(texts)} == {1}
    with pytest.raises(ValueError, match="threshold"):
        classifier.predict(texts, threshold=0.2)
    with pytest.raises(ValueError, match=r"no heads for them: train with exits.learn"):
        classifier.predict(texts, criterion="lte")
    with pytest.raises(ValueError, match="input 1 is empty"):
        classifier.predict(["fine", " "])

    # Only what depends on a changed evaluate field is done again.
    with pytest.raises(WorkdirError, match=r"optim.clip_norm was 1.0, now 0.5"):
        pipeline.run(change(config, method=method, optim={"clip_norm": 0.5}), path)
    fewer = change(config, method=method, evaluate={"criteria": ("margin",)})
    _, again = pipeline.run(fewer, path, quiet=True)
    assert list(again["curves"]) == ["margin"]
    assert again["exits"] == results["exits"]
    for name in ("logits_test.npz", "model/params.safetensors", "metrics.jsonl"):
        assert (path / name).stat().st_mtime_ns == before[path / name]
    sweet_jax.load(path / "model")

    # A budget chooses the thresholds of the results, from the model folder alone.
    for row in results["at_speedup"]["confidence"]:
        target = ("speedup", row["target"])
        if row["score"] is None:
            with pytest.raises(ValueError, match="out of reach"):
                classifier.choose_thresholds(target)
        else:
            limit = FULL if row["threshold"] is None else row["threshold"]
            assert classifier.choose_thresholds(target) == (np.float32(limit),)

    # Other data, the run's own calibration.
    found, where = evaluate.evaluate_on(path, settings.data.test_file)
    for mine, theirs in zip(found["exits"], again["exits"], strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-6)
    assert (where / "report.html").is_file()
    # A second time it is read, as after a stop behind its last file; nothing else is.
    before = (where / "results.json").stat().st_mtime_ns
    assert evaluate.evaluate_on(path, settings.data.test_file) == (found, where)
    assert (where / "results.json").stat().st_mtime_ns == before
    with pytest.raises(WorkdirError, match="another model or other rows: name anoth"):
        evaluate.evaluate_on(path, settings.data.train_file, output=where)
    with pytest.raises(WorkdirError, match="plots is not empty: name another"):
        evaluate.evaluate_on(path, settings.data.test_file, output=where / "plots")

    # Rows of one class, some of which were trained on: measured, and said.
    lines = Path(settings.data.train_file).read_text().splitlines(keepends=True)
    one_class = tmp_path / "one_class.jsonl"
    one_class.write_text("".join(line for line in lines if '"yes"' in line))
    found, where = evaluate.evaluate_on(path, str(one_class))
    assert found["splits"]["test"] == 60
    notes = " ".join(found["notes"])
    assert "no test row has the class 'no' (1 of 2 classes)" in notes
    assert "of 60 test rows" in notes
    page = (where / "report.html").read_text()
    summary = " ".join(format_summary(found).split())
    for text in (notes, page, summary):
        assert "are also training rows" in text

    # An altered file is refused by name.
    with (path / "model" / "params.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelFolderError, match=r"params.safetensors was altered"):
        sweet_jax.load(path / "model")
    # What errors of model folders advise leads out.
    shutil.rmtree(path / "model")
    (path / "results.json").unlink()
    pipeline.run(fewer, path, quiet=True)
    answers = sweet_jax.load(path / "model").predict(texts, threshold=middle)
    assert [a.exit for a in answers] == exits.tolist()


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("sweet", marks=SLOW),
        *(pytest.param(method, marks=LONG) for method in ("early_exit", "multi_model")),
    ],
)
def test_exits_learn_to_exit_from_training_to_the_classifier(config, tmp_path, method):
    exits = {"layers": (0, 1), "learn_to_exit": True}
    settings = change(config, method=method, exits=exits)
    path, results = pipeline.run(settings, tmp_path / "run", quiet=True)
    assert list(results["curves"]) == list(registries.BUILTIN_CRITERIA)
    assert results["curves"]["lte"][0]["exit_counts"] == [50, 0]
    lines = (path / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    steps = [row for row in logged if "loss" in row]
    assert all(len(row["lte_loss"]) == len(row["loss"]) for row in steps)
    assert all(0 <= loss <= 1 for row in steps for loss in row["lte_loss"])

    # Ranges come from calibration part 0 and lie in the model folder.
    fit_rows = LogitBank.load(path / "logits_calibration.npz").select_part(0)
    bank = LogitBank.load(path / "logits_test.npz")
    assert fit_rows.lte is not None
    assert bank.lte is not None
    ranges = np.stack([fit_rows.lte.min(axis=0), fit_rows.lte.max(axis=0)], 1)
    reported = [row["lte_range"] for row in results["exits"]]
    np.testing.assert_array_equal(np.float32(reported), ranges)
    assert all(0 <= row["lte_auc"] <= 1 for row in results["exits"])
    classifier = sweet_jax.load(path / "model")
    np.testing.assert_array_equal(classifier.calibration.lte_ranges, ranges)

    # The classifier leaves where the cascade on the bank does.
    low_E, high_E = ranges.T
    scores = np.clip((bank.lte - low_E[None]) / (high_E - low_E)[None], 0, 1)
    early = np.sort(scores[:, 0])
    middle = float(early[24:26].mean())
    assert np.abs(early - middle).min() > 1e-5, "ties: choose another threshold"
    lines = Path(settings.data.test_file).read_text().splitlines()
    texts = [json.loads(line)["sentence"] for line in lines]
    answers = classifier.predict(texts, threshold=middle, criterion="lte")
    exits_N = np.where(scores[:, 0] >= middle, 0, 1)
    assert set(exits_N) == {0, 1}
    assert [answer.exit for answer in answers] == exits_N.tolist()
    with pytest.raises(ValueError, match="allowed is 0 to 1"):
        classifier.predict(texts, threshold=1.5, criterion="lte")

    # Other data, the run's own ranges.
    found, _ = evaluate.evaluate_on(path, settings.data.test_file)
    for mine, theirs in zip(found["exits"], results["exits"], strict=True):
        assert mine["lte_range"] == theirs["lte_range"]
        assert mine["lte_auc"] == pytest.approx(theirs["lte_auc"], abs=1e-3)
    assert found["area"]["lte"] == pytest.approx(results["area"]["lte"], abs=1e-3)


@SLOW
def test_faithful_release_calibrates_on_all_test_rows_with_dropout(config, tmp_path):
    for section, field in (
        *(("data", name) for name in ("buckets", "max_train_examples", "max_length")),
        *(("train", name) for name in ("num_epochs", "batch_size")),
    ):
        del config[section][field]
    config["exits"]["learn_to_exit"] = True
    config["evaluate"]["baselines"] = True
    settings = change(config, faithful_release=True)
    path, results = pipeline.run(settings, tmp_path / "run", quiet=True)
    assert results["faithful_release"]
    assert len(results["baselines"]["frozen"]) == 2
    assert "faithful_release" in (path / "report.html").read_text()
    assert any("all test rows" in note for note in results["notes"])
    paths = flatten_paths(sweet_jax.load(path / "model").params)
    assert sum("pooler/kernel" in p for p in paths) == 1

    fit, calibration, test = (
        LogitBank.load(path / f"logits_{name}.npz")
        for name in ("calibration_dropout", "calibration", "test")
    )
    np.testing.assert_array_equal(fit.row_ids, test.row_ids)
    np.testing.assert_array_equal(calibration.logits, test.logits)
    assert np.abs(fit.logits - test.logits).max() > 1e-4, "dropout was off"
    # All rows of that bank, without our bounds.
    expected = fit_temperatures(fit, RELEASED_RANGE)
    found = [row["temperature"] for row in results["exits"]]
    np.testing.assert_array_equal(np.float32(found), expected)
    assert fit.lte is not None
    ranges = np.stack([fit.lte.min(axis=0), fit.lte.max(axis=0)], 1)
    reported = [row["lte_range"] for row in results["exits"]]
    np.testing.assert_array_equal(np.float32(reported), ranges)

    # Scores are without dropout, and what is stored is found again.
    answers = test.logits.argmax(axis=2) == test.labels[:, None]
    np.testing.assert_allclose(
        [row["score"] for row in results["exits"]], answers.mean(axis=0)
    )
    metrics = (path / "metrics.jsonl").read_bytes()
    (path / "results.json").unlink()
    _, again = pipeline.run(settings, path, quiet=True)
    assert again["exits"] == results["exits"]
    # Without its bank the model is asked again, with the same masks: by the last
    # checkpoint, whatever the batches of evaluation.
    (path / "results.json").unlink()
    (path / "logits_calibration_dropout.npz").unlink()
    other = change(config, faithful_release=True, evaluate={"batch_size": 7})
    pipeline.run(other, path, quiet=True)
    redone = LogitBank.load(path / "logits_calibration_dropout.npz")
    np.testing.assert_array_equal(redone.logits, fit.logits)
    assert (path / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.slow
def test_a_diverging_run_names_step_and_exit_and_keeps_its_checkpoint(config, tmp_path):
    huge = change(
        config,
        optim={
            "encoder_learning_rate": 1.0,
            "exit_learning_rate": 1.0,
            "weight_decay": 1e30,
            "schedule": "constant",
            "warmup_percent": 0.0,
        },
        train={"checkpoint_every_steps": 1},
    )
    with pytest.raises(NonFiniteError, match=r"loss of exit 0 is nan at step \d"):
        pipeline.run(huge, tmp_path / "run", quiet=True)
    steps = tmp_path / "run" / "checkpoints" / "model" / "steps"
    assert Checkpoints(steps).list_steps()


@SLOW
def test_select_best_takes_the_best_epoch_on_part_0(config, tmp_path):
    settings = change(config, train={"select": "best", "num_epochs": 3})
    path, _ = pipeline.run(settings, tmp_path / "run", quiet=True)
    bank = LogitBank.load(path / "logits_calibration.npz").select_part(0)
    score = (bank.logits.argmax(2) == bank.labels[:, None]).mean()
    (step,) = (path / "checkpoints" / "model" / "steps").iterdir()
    kept = safetensors.numpy.load_file(step / "state.safetensors")
    assert 1 <= kept["best/epoch"] <= 3
    assert kept["best/score"] == pytest.approx(score, abs=1e-6)
    params = flatten_paths(sweet_jax.load(path / "model").params)
    for name, leaf in params.items():
        np.testing.assert_array_equal(kept[f"best/params/{name}"], leaf)
    late = dataclasses.replace(settings, analysis=AnalysisSettings(True))
    with pytest.raises(SettingsError, match="best epoch, not its last step"):
        pipeline.run(late, path, quiet=True)


@SLOW
def test_a_few_shot_run_reads_no_other_label_and_serves_a_speedup(config, tmp_path):
    config["data"] |= {"shots": 4, "max_train_examples": -1, "calibration_examples": -1}
    path, results = pipeline.run(from_config_dict(config), tmp_path / "run", quiet=True)
    assert results["splits"]["train"] == sum(results["train_label_counts"]) == 8
    assert results["reads_calibration_labels"] is False
    assert [row["temperature"] for row in results["exits"]] == [1, 1]
    said = "no label outside of the 8 training rows is used to calibrate"
    assert said in " ".join(format_summary(results).split())
    assert said in (path / "report.html").read_text()
    assert not LogitBank.load(path / "model" / "calibration.npz").labels.any()
    classifier = sweet_jax.load(path / "model")
    assert classifier.predict(["a film"], speedup=1.2)
    for asked in ({"max_accuracy_loss": 0.1}, {"speedup": 1.2, "choose": "score"}):
        with pytest.raises(ValueError, match="calibrated without labels"):
            classifier.predict(["a film"], **asked)
    # The advice leads out: with labels the same rows allow both.
    config["data"]["calibration_examples"] = 24
    path, results = pipeline.run(
        from_config_dict(config), tmp_path / "with", quiet=True
    )
    assert results["reads_calibration_labels"] is True
    assert "uses 24 labelled rows beside the 8" in " ".join(results["notes"])
    assert sweet_jax.load(path / "model").predict(["a film"], max_accuracy_loss=0.9)


def test_a_directory_of_something_else_is_left_alone(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="holds no run"):
        pipeline.run(from_config_dict(config), tmp_path, quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@SLOW
def test_one_file_is_enough_and_its_columns_are_remembered(config, tmp_path):
    """From a csv to results that say what was split off, to answers and a measure."""
    rows = make_sentences(150, seed=3)
    names = {"sentence": "What", "label": "Kind"}
    path = write_table(tmp_path / "all.csv", rows, names)
    config["data"] |= {"task": "auto", "train_file": str(path), "test_file": ""}
    settings = from_config_dict(config)
    workdir, results = pipeline.run(settings, tmp_path / "run", quiet=True)
    assert results["columns"] == {"text": ["What"], "label": "Kind"}
    assert results["splits"] == {"train": 40, "calibration": 24, "test": 30}
    said = "30 of the 150 rows of all.csv are split off as test, stratified"
    assert said in " ".join(results["notes"])
    assert said in " ".join(format_summary(results).split())
    page = (workdir / "report.html").read_text()
    assert "test: 30 rows split off all.csv, stratified" in page
    other = from_config_dict(config | {"seed": 1})
    # The same rows, whoever asks.
    digests = [
        {name: inputs[name] for name in ("test_rows", "calibration_rows")}
        for inputs in (prepare(settings).inputs, prepare(other).inputs)
    ]
    assert digests[0] == digests[1]
    assert pipeline.run(settings, workdir, quiet=True)[1] == results
    classifier = sweet_jax.load(workdir / "model")
    assert classifier.description.text_columns == ("What",)
    assert classifier.description.label_column == "Kind"
    # A usual name beside the remembered one leads nobody astray.
    more = [{**row, "text": "x", "class": "y"} for row in rows[:20]]
    path = write_table(tmp_path / "more.csv", more, names)
    output = tmp_path / "out.jsonl"
    predict_file(classifier, PredictOptions(str(path), output))
    answers = [json.loads(line)["label"] for line in output.read_text().splitlines()]
    texts = [row["sentence"] for row in more]
    assert answers == [p.label for p in classifier.predict(texts)]
    measured, _ = evaluate.evaluate_on(workdir, str(path))
    right = [a == row["label"] for a, row in zip(answers, more, strict=True)]
    assert measured["exits"][-1]["accuracy"] == pytest.approx(np.mean(right))


def write_table(path: Path, rows: list[dict[str, Any]], names: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [names.get(name, name) for name in rows[0]])
        writer.writeheader()
        for row in rows:
            writer.writerow({names.get(name, name): row[name] for name in row})
    return path
