"""Studies run: cells in processes of their own, resumable, shared, failing alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sweet_jax.settings.fields import Settings, StudySettings, to_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.study import cells, run
from sweet_jax.study.cell_lock import CellLocks
from sweet_jax.study.folder import READ_FILES
from sweet_jax.study.plan import Plan, make_plan
from sweet_jax.study.run import describe_plan, run_study
from sweet_jax.system.checksums import record, write_sealed

SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(shared_cache, monkeypatch):
    """Caches of the tests never touch the user's."""
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))


@pytest.fixture
def base(tiny_config) -> dict[str, Any]:
    """Two layers, two exits, one length."""
    tiny_config["exits"]["layers"] = (0, 1)
    tiny_config["data"]["buckets"] = (16,)
    fields = to_dict(Settings())
    for name, value in tiny_config.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    return fields


def plan_of(base: dict[str, Any], **fields: Any) -> Plan:
    fields = {"methods": ("sweet", "early_exit"), "seeds": (0,), **fields}
    return make_plan(base, StudySettings(**fields))


def read_results(folder: Path, plan: Plan) -> dict[str, Any]:
    """Returns the exits of all finished cells."""
    paths = {c.name: folder / "cells" / c.name / "results.json" for c in plan.cells}
    return {
        name: json.loads(path.read_text())["exits"]
        for name, path in paths.items()
        if path.is_file()
    }


@SLOW
def test_a_failed_cell_is_listed_and_stops_no_other(base, tmp_path):
    plan = plan_of(base)
    bad, good = (tmp_path / "cells" / cell.name for cell in plan.cells)
    bad.mkdir(parents=True)
    (bad / "stranger.txt").touch()
    (failure,) = run_study(plan, tmp_path)
    assert failure.startswith(
        f"{bad.name}: {bad} exists, is not empty and holds no run"
    )
    status = json.loads((bad / "cell.json").read_text())
    assert (status["status"], status["error"]) == ("failed", failure.split(": ", 1)[1])
    status = json.loads((good / "cell.json").read_text())
    assert (status["status"], status["error"]) == ("finished", None)
    assert 1e8 < status["peak_memory_bytes"] < 1e11
    assert 0 < status["seconds"] < 600
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [c["name"] for c in written["cells"]] == [c.name for c in plan.cells]
    assert not list((tmp_path / "locks").glob("*.json"))

    # The same call again runs what failed, and that alone.
    (bad / "stranger.txt").unlink()
    before = (good / "results.json").stat().st_mtime_ns
    assert run_study(plan, tmp_path) == []
    assert (good / "results.json").stat().st_mtime_ns == before
    assert len(read_results(tmp_path, plan)) == 2
    assert describe_plan(plan, tmp_path).count("finished") == 2


def test_a_folder_of_another_study_is_refused(base, tmp_path):
    plan = plan_of(base)
    for cell in plan.cells:
        folder = tmp_path / "cells" / cell.name
        folder.mkdir(parents=True)
        status = {"schema": 1, "status": "finished", "error": None}
        write_sealed(folder / "cell.json", status)
    assert run_study(plan, tmp_path) == []  # Nothing is left to run.
    # The scores that are there were not run at a rate that was chosen.
    with pytest.raises(SettingsError, match=r"scores of sweet from a search over"):
        run_study(plan_of(base, exit_learning_rates=(1e-4, 1e-3)), tmp_path)
    # Of a method that the last plan did not have nothing is known. (An empty shard.)
    assert run_study(plan_of(base, methods=("sweet",)), tmp_path) == []
    fields = {
        "methods": ("early_exit",),
        "exit_learning_rates": (1e-4, 1e-3),
        "shard": "3/4",
    }
    assert run_study(plan_of(base, **fields), tmp_path) == []
    base["optim"]["clip_norm"] = 0.25
    with pytest.raises(SettingsError, match=r"optim.clip_norm was 1.0, now 0.25") as e:
        run_study(plan_of(base), tmp_path)
    assert "\n" not in str(e.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(SettingsError, match=r"holds notes.txt but no study"):
        run_study(plan, tmp_path / "other")


def test_a_cell_has_ended_when_its_process_says_so(base, tmp_path, monkeypatch):
    plan = plan_of(base, methods=("sweet",))
    [cell] = plan.cells
    folder = tmp_path / "cells" / cell.name
    folder.mkdir(parents=True)
    for name in READ_FILES:
        (folder / name).write_text('{"seconds": {"train": 2.0}}')
    record(folder, *READ_FILES)
    (folder / "report.html").touch()
    # With nobody at work the run is `sweet_jax.main`'s own.
    assert describe_plan(plan, tmp_path).count("finished") == 1
    assert run_study(plan, tmp_path) == []
    assert json.loads((folder / "cell.json").read_text())["seconds"] == 2.0

    (folder / "cell.json").unlink()
    waits = []

    def wait(_: float) -> None:
        # The other process writes time and memory of the cell last of all.
        assert not (folder / "cell.json").exists()
        waits.append(1)
        cells.adopt_cell(folder)

    monkeypatch.setattr(run.time, "sleep", wait)
    with CellLocks(tmp_path / "locks").hold(cell.name) as held:
        assert held
        assert run_study(plan, tmp_path) == []
    assert waits == [1]


def test_inputs_are_checked_before_any_cell_runs(base, tmp_path):
    for fields, message in (
        ({"tasks": (str(tmp_path / "nowhere"), "rte2x")}, "data.task="),
        ({"encoders": (str(tmp_path / "nothing"),)}, "nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            run_study(plan_of(base, **fields), tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.long
def test_rates_are_chosen_on_part_0_and_used(base, tmp_path):
    base["data"]["calibration_examples"] = 24
    plan = plan_of(
        base,
        methods=("sweet",),
        encoder_learning_rates=(1e-6, 3e-3),
        exit_learning_rates=(2e-6, 2e-3),
        seeds=(1,),
    )
    assert run_study(plan, tmp_path) == []
    (choice,) = json.loads((tmp_path / "plan.json").read_text())["choices"]
    scores = {
        (row["encoder_learning_rate"], row["exit_learning_rate"]): row["score"]
        for row in choice["tried"]
    }
    assert len(scores) == 4
    chosen = tuple(choice["chosen"].values())
    assert chosen == max(scores, key=lambda rates: scores[rates])
    config = json.loads(
        (tmp_path / "cells" / plan.cells[-1].name / "config.json").read_text()
    )
    optim = config["settings"]["optim"]
    assert (optim["encoder_learning_rate"], optim["exit_learning_rate"]) == chosen


@SLOW
def test_shards_and_kill_9_give_the_study_of_one_process(base, tmp_path):
    """Every cell ends as if nothing had happened, once the command is repeated."""
    plan = plan_of(base)
    assert run_study(plan, tmp_path / "whole") == []
    whole = read_results(tmp_path / "whole", plan)
    assert len(whole) == 2
    for i in range(2):
        assert run_study(plan_of(base, shard=f"{i}/2"), tmp_path / "shards") == []
    assert read_results(tmp_path / "shards", plan) == whole

    folder = tmp_path / "killed"
    process = start_study(base, folder)
    metrics = folder / "cells" / plan.cells[1].name / "metrics.jsonl"
    end = time.monotonic() + 300
    while not metrics.exists() or b'"step"' not in metrics.read_bytes():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert start_study(base, folder).wait() == 0
    assert read_results(folder, plan) == whole


def start_study(base: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """Starts the study of `plan_of(base)` in a process of its own."""
    script = (
        "import json, sys; from pathlib import Path;"
        "from sweet_jax.settings.fields import StudySettings;"
        "from sweet_jax.study.plan import make_plan;"
        "from sweet_jax.study.run import run_study;"
        "study = StudySettings(methods=('sweet', 'early_exit'), seeds=(0,));"
        "plan = make_plan(json.load(sys.stdin), study);"
        "sys.exit(len(run_study(plan, Path(sys.argv[1]))))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(json.dumps(base).encode())
    return process
