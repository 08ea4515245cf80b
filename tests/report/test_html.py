"""The page of a run: what a reader needs, whatever the user has named."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from report_files import change_results, make_workdir, record_files

from sweet_jax.report import files, format_summary, html, style


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run with a further test set; tests copy it."""
    return make_workdir(
        tmp_path_factory.mktemp("runs") / "run", extra_tests=("validation_mismatched",)
    )


@pytest.fixture
def workdir(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def make_page(workdir: Path) -> Page:
    """Returns the page of a changed run with a stand-in for the slow pictures."""
    picture = style.Picture("speed_accuracy", "Title", "Caption", "Alt", b"")
    return Page(html.make_report_html(files.read_run(workdir), [picture]))


def test_page_shows_what_a_reader_needs(workdir: Path):
    results = change_results(workdir, notes=["validation split used as test"])
    text = make_page(workdir).text
    for expected in (
        results["cost_formula"],
        "validation split used as test",
        f"{results['exits'][2]['score']:.3f}",
        f"{results['area']['confidence']:.3f}",
        "optim.clip_norm",
        "class 0, class 1",
        "train 141.5",
        "test: 120 of 8530 rows; train: 2000 of a pool of 6000 rows",
        "parameters 23.16 M",
        "training 13.52 TFLOP",
        "train step 314.9 MB",
        "programs train 5, evaluate 4",
    ):
        assert expected in text, expected
    assert "faithful_release" not in text


def test_costs_that_no_backend_told_are_not_zero(workdir: Path):
    change_results(workdir, training_flops=0.0, training_temporary_bytes=0)
    text = make_page(workdir).text
    assert text.count("not known") == 2
    assert "0 TFLOP" not in text
    assert "0 MB" not in text


def test_page_shows_every_further_test_set(workdir: Path):
    results = files.read_results(workdir)
    page = make_page(workdir)
    before, _, after = page.text.partition("Test set validation_mismatched")
    section, _, _ = after.partition("Settings and data")
    for part, test in (
        (before, results),
        (section, results["extra_tests"]["validation_mismatched"]),
    ):
        for row in test["exits"]:
            names = ("score", "nll", "ece_before", "ece_after")
            assert " ".join(f"{row[name]:.3f}" for name in names) in part
        for point in test["at_speedup"]["patience"][:-1]:
            number = f"{point['score']:.3f} {point['cost_fraction']:.3f}"
            assert f"patience {point['target']:g}x" in part
            assert number in part
    area = results["extra_tests"]["validation_mismatched"]["area"]["patience"]
    assert f"patience {area:.3f}" in section
    assert page.tags.count("h2") == 3
    change_results(workdir, extra_tests={})
    assert make_page(workdir).tags.count("h2") == 2


def test_faithful_release_is_said_first(workdir: Path):
    change_results(workdir, faithful_release=True)
    text = make_page(workdir).text
    assert text.index("faithful_release") < text.index("Full depth")
    assert "faithful_release" in format_summary(files.read_results(workdir))


def test_page_escapes_everything_a_user_can_name(workdir: Path):
    evil = "</td><script>alert(1)</script>\"'& 模型 $\\frac{$"
    [measures] = files.read_results(workdir)["extra_tests"].values()
    change_results(
        workdir,
        label_names=[evil, "b"],
        notes=[evil],
        task=evil,
        encoder=evil,
        method_label=evil,
        cost_formula=evil,
        versions={evil: evil},
        origin={"test": evil},
        extra_tests={evil: measures},
    )
    config = {"settings": {evil: evil}}
    (workdir / "config.json").write_text(json.dumps(config), encoding="utf-8")
    record_files(workdir)
    page = make_page(workdir)
    assert "script" not in page.tags
    # In title and heading, twice each; every other field once, keys and values.
    assert page.text.count(evil) == 14


@pytest.mark.parametrize("num_classes", [3, 60])
def test_page_scores_every_class(tmp_path: Path, num_classes: int):
    rng = np.random.default_rng(0)
    classes = [
        {
            "class": c,
            "examples": 1200.0 + c,
            **{name: rng.random(4).tolist() for name in ("precision", "recall", "f1")},
        }
        for c in range(num_classes)
    ]
    run = make_workdir(tmp_path / "run", num_classes, num_examples=60, classes=classes)
    text = make_page(run).text
    for row in classes:
        cells = [f"class {row['class']}", f"{1200 + row['class']:,}"]
        cells += [f"{row[name][3]:.3f}" for name in ("precision", "recall", "f1")]
        cells += [f"{f1:.3f}" for f1 in row["f1"][:3]]
        assert re.search(r"\s*".join(map(re.escape, cells)), text)
    assert ("Scores of all 60 classes" in text) == (num_classes == 60)
    assert "Every class" not in make_page(make_workdir(tmp_path / "without")).text
