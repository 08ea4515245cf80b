"""The steps of PAPA: one command, resumed anywhere, refused where it must be."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from command_line import run_command

from sweet_jax.analysis.papa.constants_file import (
    FILE_NAME,
    StoredSums,
    load_sums,
    save_sums,
)
from sweet_jax.analysis.papa.fit import Fit
from sweet_jax.analysis.papa.progress import Progress
from sweet_jax.report.papa_record import read_papa_record
from sweet_jax.runs import papa as papa_module
from sweet_jax.runs.papa import run_papa
from sweet_jax.runs.papa_inputs import prepare_papa
from sweet_jax.runs.workdir import WorkdirError
from sweet_jax.settings.papa import papa_from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.files import FileError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's; constants are saved on the way."""
    prepare(monkeypatch, shared_cache)


def prepare(patch, shared_cache):
    patch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    # Sums are the same bit for bit only over the same batches.
    patch.setattr(papa_module, "_ROWS_BETWEEN_SAVES", 40)


@pytest.fixture(scope="module")
def base(tiny_encoder, tiny_task):
    return {
        "encoder": {"name": str(tiny_encoder)},
        "data": {
            "train_file": str(tiny_task / "train.jsonl"),
            "test_file": str(tiny_task / "test.jsonl"),
            "calibration_examples": 24,
        },
        "papa": {
            "length": 16,
            "constant_heads": (0, 3, 8),
            "seeds": (0, 1),
            "batch_size": 16,
            "num_epochs": 2,
            "points_at_once": 2,
            "checkpoint_every_steps": 4,
        },
    }


def change(base, **papa):
    return {**base, "papa": {**base["papa"], **papa}}


def run(base, workdir):
    return run_papa(*papa_from_config_dict(base), workdir, quiet=True)[1]


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory, shared_cache):
    workdir = tmp_path_factory.mktemp("papa") / "whole"
    with pytest.MonkeyPatch.context() as context:
        prepare(context, shared_cache)
        run(change(base, constants=("averages", "averages_8", "uniform")), workdir)
    return workdir


def compare(record, other):
    """Checks that two analyses found the same, whatever time it took."""
    for field in ("curves", "rankings", "majority", "rows"):
        assert record[field] == other[field]


def test_an_analysis_has_its_files_and_is_shown_again(base, finished, capsys):
    record = read_papa_record(finished)
    assert [(c["ranking"], c["constants"]) for c in record["curves"]] == [
        ("gates", "averages"),
        ("gates", "averages_8"),
        ("gates", "uniform"),
    ]
    points = record["curves"][0]["points"]
    assert [p["dynamic_heads"] for p in points] == [8, 5, 0]
    assert all(len(p["scores"]) == 2 for p in points)
    assert len({json.dumps(c["points"][0]) for c in record["curves"]}) == 1
    assert len(list((finished / "points").iterdir())) == 7  # k = 0 is shared.
    page = (finished / "papa.html").read_text()
    assert "The constants" in page
    assert "P3" in (finished / "papa.md").read_text()
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    same = run(change(base, constants=("averages", "averages_8", "uniform")), finished)
    assert same == record
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert {p for p in before if before[p] != after[p]} <= {finished / ".lock"}


def test_other_settings_do_not_touch_a_finished_one(base, finished):
    with pytest.raises(WorkdirError, match=r"other settings: papa\.learning_rate was"):
        run(
            change(
                base,
                constants=("averages", "averages_8", "uniform"),
                learning_rate=0.01,
            ),
            finished,
        )


@pytest.mark.parametrize("step", ["constants", "gates", "k = 0, 3: probes"])
def test_an_analysis_that_is_killed_goes_on(
    base, finished, tmp_path, monkeypatch, step
):
    settings = change(base, constants=("averages", "averages_8", "uniform"))
    seen = []

    class Killed(BaseException):
        pass

    class Killer(Progress):
        def reach(self, done, loss=None):
            super().reach(done, loss)
            seen.append((self._title, done))
            if armed and self._title == step and done > self._total * 0.6:
                raise Killed

    armed = True
    monkeypatch.setattr(papa_module, "Progress", Killer)
    with pytest.raises(Killed):
        run(settings, tmp_path / "w")
    armed = False
    last = max(done for title, done in seen if title == step)
    seen.clear()
    record = run(settings, tmp_path / "w")
    compare(record, read_papa_record(finished))
    resumed = [done for title, done in seen if title == step]
    # The first look of the second process is behind what was stored, not at the start.
    assert resumed[0] > last * 0.4
    assert not (tmp_path / "w" / "checkpoints").exists()


def test_a_signal_stores_the_state(base, tmp_path, monkeypatch):
    whole = run(base, tmp_path / "whole")
    steps = []

    def send(self, done, loss=None):
        steps.append(done)
        if self._title == "gates" and done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(Progress, "reach", send)
        with pytest.raises(KeyboardInterrupt):
            run(change(base, checkpoint_every_steps=1000), tmp_path / "w")
    compare(run(base, tmp_path / "w"), whole)


def test_how_many_points_train_at_once_changes_nothing(base, finished, tmp_path):
    other = run(
        change(base, constants=("averages", "averages_8", "uniform"), points_at_once=1),
        tmp_path,
    )
    mine, theirs = (
        r["curves"][0]["points"] for r in (other, read_papa_record(finished))
    )
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a["scores"], b["scores"], atol=0.021)


def test_altered_constants_are_refused_and_can_be_made_again(base, finished, tmp_path):
    settings = change(base, constants=("averages", "averages_8", "uniform"))
    folder = tmp_path / "w"
    shutil.copytree(finished, folder)
    (folder / "papa.json").unlink()
    data = bytearray((folder / FILE_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / FILE_NAME).write_bytes(data)
    with pytest.raises(FileError, match=r"constants\.npz .*: delete it, and the same"):
        run(settings, folder)
    (folder / FILE_NAME).unlink()
    compare(run(settings, folder), read_papa_record(finished))


def test_constants_without_the_few_rows_are_computed_again(base, finished, tmp_path):
    settings = change(base, constants=("averages", "averages_8", "uniform"))
    folder = tmp_path / "w"
    shutil.copytree(finished, folder)
    (folder / "papa.json").unlink()
    identity = prepare_papa(*papa_from_config_dict(base)).identity
    stored = load_sums(folder / FILE_NAME, identity, "copy it again")
    whole = {n: s for n, s in stored.by_rows.items() if n == 96}
    save_sums(folder / FILE_NAME, identity, StoredSums(whole, True, 1.0))
    compare(run(settings, folder), read_papa_record(finished))
    assert 8 in load_sums(folder / FILE_NAME, identity, "copy it again").by_rows


def test_constants_of_another_layout_are_refused(base, finished, tmp_path):
    folder = tmp_path / "w"
    settings = change(base, length=14)
    run(settings, folder)
    shutil.copy(finished / FILE_NAME, folder / FILE_NAME)
    (folder / "papa.json").unlink()
    with pytest.raises(FileError, match=r"another length \(16, here 14\): delete it"):
        run(settings, folder)


def test_damaged_points_and_rankings_are_made_again(base, finished, tmp_path, caplog):
    folder = tmp_path / "w"
    shutil.copytree(finished, folder)
    (folder / "papa.json").unlink()
    (folder / "rankings" / "gates.json").write_text("{}")
    point = folder / "points" / "k0.npz"
    point.write_bytes(point.read_bytes()[:100])
    settings = change(base, constants=("averages", "averages_8", "uniform"))
    compare(run(settings, folder), read_papa_record(finished))
    assert "gates.json was altered or damaged: it is made again" in caplog.text
    assert "k0.npz is damaged" in caplog.text


def test_constants_of_another_task_have_a_curve(base, finished, tmp_path):
    settings = change(base, constants_of=(str(finished),))
    settings["data"] = {**base["data"], "max_train_examples": 40}
    record = run(settings, tmp_path / "w")
    assert record["curves"][1]["constants"] == "averages of whole"
    with pytest.raises(FileError, match=r"another length .*papa\.constants_of names"):
        run(change(settings, length=14), tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_the_released_form_runs(base, tmp_path):
    settings = change(base, faithful_release=True, seeds=(0,), points_at_once=0)
    settings["papa"] |= {"num_epochs": -1, "ranking_epochs": -1, "batch_size": -1}
    settings["data"] = {**base["data"], "max_train_examples": 20}
    record = run(settings, tmp_path)
    assert record["layout"] == "release"
    assert record["departures"] == []


def test_the_command_runs_and_says_what_is_wrong(base, tmp_path, capsys):
    flags = [f"--config=papa:encoder={base['encoder']['name']}"]
    flags += [f"--config.data.{k}={v}" for k, v in base["data"].items()]
    flags += ["--config.papa.length=16", "--config.papa.rankings=bottom"]
    flags += ["--config.papa.constant_heads=8", "--config.papa.seeds=0"]
    assert run_command("analyze", "papa", *flags, f"--workdir={tmp_path / 'w'}") == 0
    assert "P2: with half" in capsys.readouterr().out
    assert run_command("analyze", "papa", *flags, "--config.papa.length=15") == 2
    assert "papa.length=15: allowed are even numbers" in capsys.readouterr().err


def test_a_diverging_training_is_one_line(base, tmp_path, monkeypatch):
    monkeypatch.setattr(Fit, "_make_run", make_bad_run)
    with pytest.raises(
        ValueError, match=r"loss of a probe is nan.*papa\.learning_rate"
    ):
        run(change(base, rankings=("bottom",)), tmp_path)


def make_bad_run(self, loss_fn):
    def run_bad(state, data, weights, rows, plan, real, keys, stop):
        return state, np.float32(np.nan) * state.step.astype(np.float32)

    return run_bad


def test_several_hosts_are_refused(base, tmp_path, monkeypatch):
    monkeypatch.setattr(papa_module.jax, "process_count", lambda: 2)
    with pytest.raises(SettingsError, match="one host"):
        run(base, tmp_path)
