"""Baselines on the terminal and on the page, and the warning about low exits."""

import re
from pathlib import Path
from typing import Any

import pytest
from report_files import change_results, make_workdir

from sweet_jax.report import files, format_run, html, style
from sweet_jax.report.baselines import describe_low_exits, make_baseline_table
from sweet_jax.settings.fields import Settings, flatten_settings


def make_results(
    exits: tuple[float, ...],
    frozen: tuple[float, ...],
    tfidf: float,
    metric: str = "accuracy",
    accuracy: float = 0.5,
) -> dict[str, Any]:
    """Returns what reports read of scores; every accuracy is the same."""

    def describe(score: float, model: str = "logistic regression") -> dict[str, Any]:
        return {"model": model, "score": score, "accuracy": accuracy}

    return {
        "metric": metric,
        "seconds": {"probe": 0.0},
        "exits": [
            {"exit": i, "layer": 2 * i, "score": score, "accuracy": accuracy}
            for i, score in enumerate(exits)
        ],
        "baselines": {
            "majority": describe(0.1, "constant"),
            "tfidf": describe(tfidf),
            "frozen": [
                {"exit": i, "layer": 2 * i, **describe(score)}
                for i, score in enumerate(frozen)
            ],
            "seconds": 7.4,
        },
    }


def test_only_exits_more_than_a_point_below_a_baseline_are_warned_about():
    level = make_results((0.7, 0.8, 0.9), (0.71, 0.81, 0.9), tfidf=0.71)
    assert describe_low_exits(level) == ""
    low = make_results((0.705, 0.8, 0.9), (0.83, 0.805, 0.7), tfidf=0.815)
    said = describe_low_exits(low)
    assert (
        "exit 0 (0.705) is 12.5 points below logistic regression on the frozen" in said
    )
    assert (
        "exit 1 (0.800) is 1.5 points below logistic regression on tf-idf (0.815"
        in said
    )
    assert "exit 2" not in said
    fields = re.findall(r"[a-z]+\.[a-z_]+(?=[,)=])", said)
    assert {"train.num_epochs", "exits.init"} < {*fields}
    low["seconds"]["probe"] = 3.2  # The exits were started so.
    assert "exits.init" not in describe_low_exits(low)
    assert set(fields) - {"baselines.md"} <= flatten_settings(Settings()).keys()


def test_a_scale_that_is_not_known_is_not_compared():
    """Of a registered metric accuracies are: a point of it may be anything."""
    assert not describe_low_exits(make_results((-9.0,), (-5.0,), -6.0, "neg_loss"))
    assert describe_low_exits(make_results((0.2,), (0.3,), 0.0, "macro_f1"))
    said = make_results((-1.0,), (-5.0,), -6.0, "neg_loss")
    said["baselines"]["tfidf"]["accuracy"] = 0.6
    assert "in accuracy: exit 0 (0.500) is 10.0 points" in describe_low_exits(said)


def test_accuracy_stands_beside_another_metric():
    table = make_baseline_table(make_results((0.2,), (0.3,), 0.4, "macro_f1"))
    assert table.rows[0][2:] == ("0.200 (0.500)", "0.300 (0.500)", "0.400 (0.500)",
                                 "0.100 (0.500)")  # fmt: skip
    assert table.caption.startswith("Macro F1 (accuracy)")
    table = make_baseline_table(make_results((0.2,), (0.3,), 0.4))
    assert table.rows == (("0", "0", "0.200", "0.300", "0.400", "0.100"),)


@pytest.mark.parametrize("without", [{}, {"baselines": None}])
def test_runs_without_baselines_show_none(without):
    results = {"metric": "accuracy", "exits": [], **without}
    assert not make_baseline_table(results).rows
    assert describe_low_exits(results) == ""


def test_terminal_and_page_show_them(tmp_path: Path):
    make_workdir(tmp_path)
    exits = files.read_results(tmp_path)["exits"]
    scores = tuple(row["score"] for row in exits)
    made = make_results(scores, tuple(score + 0.05 for score in scores), 0.123)
    change_results(tmp_path, baselines=made["baselines"])
    for shown in (make_page(tmp_path), format_run(tmp_path)):
        words = " ".join(shown.split())
        assert "frozen states" in words
        assert "0.123" in words
        assert "5.0 points below" in words
    assert all(len(line) <= 100 for line in format_run(tmp_path).splitlines())
    change_results(tmp_path, baselines=None)
    assert "frozen" not in make_page(tmp_path) + format_run(tmp_path)


def make_page(workdir: Path) -> str:
    """Returns the page, with a stand-in for the slow pictures."""
    picture = style.Picture("speed_accuracy", "Title", "Caption", "Alt", b"")
    return html.make_report_html(files.read_run(workdir), [picture])
