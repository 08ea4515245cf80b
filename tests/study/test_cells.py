"""A cell in a process of its own: how it ended, and what it scored."""

import numpy as np
import pytest
from study_files import make_study, write_status

from sweet_jax.arrays import LogitBank
from sweet_jax.study import cells
from sweet_jax.system.files import FileError


def test_why_a_process_ended_is_one_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("10:00 starts\nerror: data.task=x: no\nmore\n")
    assert cells.find_error(log, 2) == "data.task=x: no"
    assert "SIGKILL" in cells.find_error(log, -9)
    log.write_text("Traceback\nZeroDivisionError: by zero\n")
    assert cells.find_error(log, 1) == "exit status 1: ZeroDivisionError: by zero"


def test_learning_rates_are_judged_on_calibration_part_0_alone(tmp_path):
    [path] = (make_study(tmp_path, ("sweet",), seeds=(0,)) / "cells").iterdir()
    bank = LogitBank.load(path / "logits_calibration.npz")
    rows = [n for n in range(len(bank.labels)) if bank.part[n] == 0]
    right = [
        sum(bank.logits[n, i].argmax() == bank.labels[n] for n in rows) / len(rows)
        for i in range(bank.num_exits)
    ]
    assert cells.score_selection(path) == pytest.approx(np.mean(right))
    bank.logits[:] = 0
    bank.save(path / "logits_calibration.npz")
    with pytest.raises(FileError, match=r"altered or damaged: delete cell\.json"):
        cells.score_selection(path)


def test_a_run_is_adopted_once_its_files_are_whole(tmp_path):
    [path] = (make_study(tmp_path, ("sweet",), seeds=(0,)) / "cells").iterdir()
    (path / "report.html").touch()
    assert cells.is_finished(path)
    assert not cells.can_adopt(path)  # It is finished already.
    write_status(path, cells.FAILED, "no space")
    assert not cells.is_finished(path)
    (path / "cell.json").unlink()
    assert cells.can_adopt(path)
    results = (path / "results.json").read_bytes()
    (path / "results.json").write_bytes(results[:-1])
    assert not cells.can_adopt(path)
    (path / "results.json").write_bytes(results)
    cells.adopt_cell(path)
    assert cells.is_finished(path)
