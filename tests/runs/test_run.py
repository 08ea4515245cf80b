"""A run in the hands of a program or a notebook."""

import json
from html import unescape
from pathlib import Path

import pytest
from report_files import make_workdir

import sweet_jax
from sweet_jax import report


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    path = make_workdir(tmp_path_factory.mktemp("run") / "<run>", task="<b>mine")
    report.write_report(path)
    return path


def test_a_run_is_opened_from_its_work_directory(workdir):
    run = sweet_jax.Run(str(workdir))
    assert run.workdir == workdir
    assert run.results == json.loads((workdir / "results.json").read_text())
    # Nothing is loaded before it is asked for.
    with pytest.raises(ValueError, match="model"):
        _ = run.classifier


def test_it_shows_its_results_in_a_program_and_in_a_notebook(workdir):
    run = sweet_jax.Run(workdir)
    shown = repr(run)
    assert shown.startswith(report.format_run(workdir))
    assert str(workdir / "report.html") in shown
    assert len(shown.splitlines()) < 50
    page = run._repr_html_()
    assert "<b>mine" not in page
    assert shown in unescape(page)


def test_the_report_shows_itself_and_is_a_path(workdir):
    shown = sweet_jax.Run(workdir).report
    page = (workdir / "report.html").read_text()
    assert Path(shown) == workdir / "report.html"
    assert str(workdir) in repr(shown)
    frame = shown._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    # Within the attribute nothing ends it.
    assert '"' not in frame.removeprefix('<iframe srcdoc="').split('" width=')[0]
    assert page in unescape(frame)


def test_a_directory_without_a_finished_run_is_one_line(tmp_path):
    with pytest.raises(report.ReportError) as error:
        sweet_jax.Run(tmp_path)
    assert "\n" not in str(error.value)
