"""Tables of a run and their form on a terminal: every number, within 100 columns."""

import re
from pathlib import Path
from typing import Any

import pytest
from report_files import make_workdir

from sweet_jax.report import files, format_summary, tables

EXTRA_TESTS = ("validation_mismatched", "handwritten")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A finished run with further test sets."""
    return make_workdir(tmp_path_factory.mktemp("runs"), extra_tests=EXTRA_TESTS)


@pytest.fixture
def results(workdir: Path) -> dict[str, Any]:
    """Its results.json, to be changed at will."""
    return files.read_results(workdir)


def test_summary_holds_every_number(results):
    summary = format_summary(results)
    first, *_ = summary.splitlines()
    assert first == "rotten_tomatoes | minilm-l6 | sweet | seed 0"
    for row in results["exits"]:
        columns = " +".join(
            [
                rf"{row['exit']} +{row['layer']}",
                *(f"{row[name]:.3f}" for name in ("score", "nll")),
                f"{row['ece_before']:.3f} +{row['ece_after']:.3f}",
                f"{row['temperature']:.2f}",
                f"{row['cost_fraction']:.3f} +{1 / row['cost_fraction']:.2f}x",
            ]
        )
        assert re.search(rf"^ *{columns}$", summary, re.MULTILINE)
    point = results["at_speedup"]["patience"][1]
    assert f"{point['score']:.3f} @ {point['cost_fraction']:.3f}" in summary
    assert f"full depth {results['full']:.3f}" in summary
    assert "majority class 0.500" in summary
    assert "oracle exit 0.950 @ 0.310" in summary
    assert f"cost: {results['cost_formula']}" in summary
    assert "note: the test split is the published one" in summary


def test_summary_has_a_line_per_further_test_set(results):
    summary = format_summary(results)
    assert "Accuracy on further test sets: every exit alone, and at speed-ups by" in (
        summary
    )
    for name in EXTRA_TESTS:
        test = results["extra_tests"][name]
        scores = [row["score"] for row in test["exits"]]
        scores += [point["score"] for point in test["at_speedup"]["confidence"]]
        cells = ["-" if score is None else f"{score:.3f}" for score in scores]
        line = rf"^{name} +{' +'.join(cells)}$"
        assert re.search(line, summary, re.MULTILINE), line
    assert max(map(len, summary.splitlines())) <= 100
    without = format_summary({**results, "extra_tests": {}})  # As most tasks.
    assert "further test sets" not in without


def test_summary_fits_the_terminal(results):
    points = [
        {**results["at_speedup"]["margin"][0], "target": 1 + i / 8} for i in range(15)
    ]
    results |= {
        "encoder": "/a/long/path" * 12,
        "notes": ["many words " * 40],
        "at_speedup": dict.fromkeys(results["at_speedup"], points),
        "extra_tests": {},
    }
    summary = format_summary(results)
    assert max(map(len, summary.splitlines())) <= 100
    assert summary.count("2.75x") == 1
    # The names stand before every part of a table that goes on below.
    assert len(re.findall("^margin", summary, re.MULTILINE)) == 3


@pytest.mark.parametrize("num_exits", [1, 24])
def test_summary_of_any_number_of_exits_fits_the_terminal(tmp_path: Path, num_exits):
    layers = tuple(range(num_exits))
    make_workdir(tmp_path, 3, 1, layers, 20, extra_tests=EXTRA_TESTS)
    summary = format_summary(files.read_results(tmp_path))
    assert max(map(len, summary.splitlines())) <= 100


def test_unreachable_speedups_are_said_to_be(results):
    line = next(
        line
        for line in format_summary(results).splitlines()
        if line.startswith("confidence")
    )
    assert line.endswith("unreachable")
    assert line.count("@") == 4
    table = tables.make_speedup_table(results)
    assert ("confidence", "100x", "-", "unreachable", "-", "-", "-") in table.rows


def test_null_threshold_with_a_score_is_the_full_model(results):
    results["at_speedup"]["margin"][0]["threshold"] = None
    row = next(r for r in tables.make_speedup_table(results).rows if r[0] == "margin")
    assert row[2] == "full"
    assert re.fullmatch(r"0\.\d{3}", row[3])


def test_accuracy_stands_beside_another_score(results):
    assert tables.make_exit_table(results).header.count("accuracy") == 1
    other = tables.make_exit_table({**results, "metric": "matthews"})
    assert other.header[2:4] == ("Matthews correlation", "accuracy")
