"""ONNX folders of a run: calibrated on its own rows, in their own precision."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_command
from onnx_folders import write_onnx_folder

import sweet_jax
from sweet_jax.arrays import LogitBank
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.exits.temperatures import fit_temperatures
from sweet_jax.runs import pipeline
from sweet_jax.settings.from_config import from_config_dict


def test_wrong_flags_are_exit_status_2(tiny_model: Path, tmp_path: Path, capsys):
    out = f"--out={tmp_path / 'out'}"
    for flags, message in (
        (["--int8"], "--int8 is for ONNX segments: add --onnx"),
        (["--onnx", "--pytorch"], "--pytorch and --onnx write different folders"),
    ):
        assert run_command("export", f"--model={tiny_model}", out, *flags) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_folder_without_its_run_is_refused(tiny_model: Path, tmp_path, capsys):
    copied = shutil.copytree(tiny_model, tmp_path / "copied")
    for model, message in (
        (copied, "is not in the work directory of its run, whose rows calibrate"),
        (tiny_model, "is not a work directory: it has no config.json"),
    ):
        flags = (f"--model={model}", f"--out={tmp_path / 'out'}", "--onnx", "--int8")
        assert run_command("export", *flags) == 2
        assert message in capsys.readouterr().err


def test_an_onnx_folder_is_not_exported_again(tiny_model: Path, tmp_path, capsys):
    folder = write_onnx_folder(tmp_path / "model", tiny_model)
    assert (
        run_command("export", f"--model={folder}", f"--out={tmp_path}/o", "--onnx") == 2
    )
    assert "has segments for ONNX Runtime" in capsys.readouterr().err


@pytest.mark.slow
def test_temperatures_and_thresholds_are_those_of_the_precision(
    tiny_config: dict[str, Any], tmp_path: Path, shared_cache: Path, monkeypatch, capsys
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    settings = from_config_dict(tiny_config)
    run, _ = pipeline.run(settings, tmp_path / "run", True)
    out = tmp_path / "int8"
    arguments = (f"--model={run / 'model'}", f"--out={out}", "--onnx", "--int8")
    assert run_command("export", *arguments) == 0
    shown = capsys.readouterr().out
    assert "segments in int8" in shown
    classifier = sweet_jax.load(out)
    check_comparison(out, run, classifier, shown)
    # The bank is what the segments give now, for the rows of the run.
    rows = make_splits(load_task(settings.data), settings).calibration
    stored = classifier.calibration.bank
    np.testing.assert_allclose(
        stored.logits, classifier.collect(rows).logits, atol=1e-5
    )
    before = LogitBank.load(run / "model" / "calibration.npz")
    np.testing.assert_array_equal(stored.labels, before.labels)
    np.testing.assert_array_equal(stored.part, before.part)
    assert np.abs(stored.logits - before.logits).max() > 0
    np.testing.assert_allclose(
        classifier.calibration.temperatures,
        fit_temperatures(stored.select_part(0)),
        rtol=1e-6,
    )
    assert len(list(classifier.predict(rows.texts, speedup=1.2))) == len(rows)
    # It is never overwritten.
    assert run_command("export", *arguments) == 2
    assert "already exists" in capsys.readouterr().err


def check_comparison(
    out: Path, run: Path, classifier: sweet_jax.AdaptiveClassifier, shown: str
) -> None:
    """What the folder states about both models is what they do."""
    trained = sweet_jax.load(run / "model")
    stated = json.loads((out / "onnx.json").read_text())["comparison"]
    results = json.loads((run / "results.json").read_text())
    assert [row["trained"] for row in stated["exits"]] == [
        row["accuracy"] for row in results["exits"]
    ]
    before, after = (c.calibration.bank for c in (trained, classifier))
    full = [bank.logits[:, -1].argmax(axis=1) for bank in (before, after)]
    assert stated["differing"] == (full[0] != full[1]).sum()
    assert stated["calibration_rows"] == len(full[0])
    np.testing.assert_array_equal(classifier.calibration.full, full[0])
    for row in stated["cascades"]:
        if row["differing"] is None:
            continue
        labels = []
        for c in (trained, classifier):
            (chosen,) = (
                x
                for x in c.description.thresholds[row["criterion"]]
                if x["target"] == row["speedup"]
            )
            threshold = chosen["threshold"]
            threshold = np.inf if threshold is None else threshold
            rows = c.calibration.apply(c.calibration.bank)
            reached = rows.score(row["criterion"]) >= np.float32(threshold)
            reached[:, -1] = True
            exits = reached.argmax(axis=1)
            labels.append(rows.predictions[np.arange(len(exits)), exits])
        assert row["differing"] == (labels[0] != labels[1]).sum()
    assert f"of {stated['calibration_rows']} calibration rows get another" in shown


@pytest.mark.slow
def test_other_rows_than_those_of_the_run_are_refused(
    tiny_config: dict[str, Any], tmp_path: Path, shared_cache: Path, monkeypatch, capsys
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    data = tmp_path / "train.jsonl"
    shutil.copyfile(tiny_config["data"]["train_file"], data)
    tiny_config["data"]["train_file"] = str(data)
    run, _ = pipeline.run(from_config_dict(tiny_config), tmp_path / "run", True)
    lines = data.read_text().splitlines()
    data.write_text("\n".join(lines[::-1]) + "\n")
    flags = (f"--model={run / 'model'}", f"--out={tmp_path / 'out'}", "--onnx")
    assert run_command("export", *flags) == 2
    assert "was calibrated or tested on other rows" in capsys.readouterr().err
