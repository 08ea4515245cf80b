"""Verdicts: of every exit and speed-up, and none that hides another."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_files import (
    METHODS,
    TASKS,
    aggregate,
    find,
    make_study,
    set_right_rows,
    write_plan,
)

from sweet_jax.study.findings import MARGIN, decide

RIGHT = {
    "sweet": (0.9, 0.9, 0.5, 0.5),
    "early_exit": (0.5, 0.5, 0.8, 0.8),
    "multi_model": (0.95,) * 4,
    "sweet(a=0.2)": (0.9, 0.9, 0.8, 0.8),
}


@pytest.mark.parametrize(
    ("kind", "interval", "verdict"),
    [
        ("greater", [0.004, 0.02], "held"),
        ("greater", [-0.02, -0.004], "refuted"),
        ("greater", [-0.004, 0.02], "undecided"),
        ("level", [-MARGIN / 2, MARGIN / 2], "held"),
        ("level", [MARGIN / 4, MARGIN / 2], "held"),
        ("level", [-2 * MARGIN, -MARGIN / 4], "refuted"),
        ("level", [-2 * MARGIN, MARGIN / 4], "undecided"),
        ("no_worse", [-MARGIN / 2, 5 * MARGIN], "held"),
        ("no_worse", [-2 * MARGIN, -MARGIN / 2], "refuted"),
        ("no_worse", [-2 * MARGIN, MARGIN], "undecided"),
        ("greater", None, "no interval"),
    ],
)
def test_verdicts(kind: str, interval, verdict: str):
    assert decide(interval, kind) == verdict


def test_findings_are_about_the_right_exits_and_speeds(tmp_path: Path):
    folder = make_study(tmp_path / "s", METHODS, change_bank=set_right_rows(RIGHT))
    findings = aggregate(folder, 30)["groups"][0]["settings"][0]["findings"]
    by_claim = {finding["claim"]: finding for finding in findings}
    assert {
        claim: [(c["of"], c["minus"], c["which"]) for c in finding["comparisons"]]
        for claim, finding in by_claim.items()
    } == {
        "multi_model_exits": [("multi_model", "early_exit", [0, 1, 2, 3])],
        "early_exit_cascade": [("early_exit", "multi_model", [])],
        "sweet_early_exits": [("sweet", "early_exit", [0, 1])],
        "sweet_fast": [
            ("sweet", "early_exit", [3.0, 4.0]),
            ("sweet", "multi_model", [3.0, 4.0]),
        ],
        "sweet_slow": [("sweet", "early_exit", [1.5, 2.0])],
        "seam": [
            ("sweet(a=0.2)", "sweet", [0, 1]),
            ("sweet(a=0.2)", "early_exit", [2, 3]),
        ],
    }
    exits = ("multi_model_exits", "sweet_early_exits", "seam")
    assert [by_claim[claim]["verdict"] for claim in exits] == ["held"] * 3
    assert by_claim["early_exit_cascade"]["verdict"] == "refuted"
    [early] = by_claim["sweet_early_exits"]["comparisons"]
    assert early["mean"] == pytest.approx(0.4)
    assert [row["which"] for row in early["points"]] == [[0], [1]]
    parts = np.mean([row["values"] for row in early["points"]], axis=0)
    assert early["values"] == pytest.approx(list(parts), abs=2e-6)
    [cascade] = by_claim["early_exit_cascade"]["comparisons"]
    assert [row["which"] for row in cascade["points"]] == [[1.5], [2.0], [3.0], [4.0]]
    assert {row["what"] for row in cascade["points"]} == {"speedup"}


def list_verdicts(finding: dict[str, Any]) -> list[str]:
    """Returns the verdicts at the exits or speed-ups of a finding."""
    return [row["verdict"] for c in finding["comparisons"] for row in c["points"]]


def test_a_mean_decides_no_exit(tmp_path: Path):
    # 2 of 90 rows more are undecided, 9 are decided.
    shares = {"early_exit": (0.5,) * 4, "multi_model": (0.9, 0.52, 0.52, 0.52)}
    folder = make_study(tmp_path / "s", shares, change_bank=set_right_rows(shares))
    [setting] = aggregate(folder, 200)["groups"][0]["settings"]
    finding = find(setting["findings"], claim="multi_model_exits")
    assert list_verdicts(finding) == ["held", *["undecided"] * 3]
    assert (finding["verdict"], finding["mean_verdict"]) == ("undecided", "held")


def test_neither_an_average_nor_an_area_hides_a_part(tmp_path: Path):
    # By its area early_exit is ahead on both tasks, at 4x on one alone.
    shares = {
        "early_exit": (0.0, 1.0, 1.0, 1.0),
        "multi_model": (0.62,) * 4,
        "early_exit on rte": (0.45, 0.95, 0.95, 0.95),
        "multi_model on rte": (0.4,) * 4,
    }
    folder = make_study(
        tmp_path / "s",
        ("early_exit", "multi_model"),
        tasks=TASKS,
        change_bank=set_right_rows(shares),
    )
    group = aggregate(folder, 200)["groups"][0]
    whole = find(group["average"]["findings"], claim="early_exit_cascade")
    assert whole["mean_verdict"] == "held"
    assert whole["verdict"] == "refuted"
    assert whole["by_task"] == {"rotten_tomatoes": "refuted", "rte": "held"}
    [first, _] = group["settings"]
    part = find(first["findings"], claim="early_exit_cascade")
    assert list_verdicts(part) == ["held", "undecided", "undecided", "refuted"]
    assert (part["verdict"], part["mean_verdict"]) == ("refuted", "held")


def test_one_comparison_refutes_a_claim_of_two(tmp_path: Path):
    shares = {"sweet": (0.3,) * 4, "early_exit": (0.8,) * 4}
    folder = make_study(tmp_path / "s", shares, change_bank=set_right_rows(shares))
    [setting] = aggregate(folder, 200)["groups"][0]["settings"]
    # Against multi_model, which is not there, nothing is known.
    assert find(setting["findings"], claim="sweet_fast")["verdict"] == "refuted"
    shares["sweet"] = (0.95,) * 4
    folder = make_study(tmp_path / "t", shares, change_bank=set_right_rows(shares))
    [setting] = aggregate(folder, 200)["groups"][0]["settings"]
    assert "sweet_fast" not in {row["claim"] for row in setting["findings"]}


def test_tasks_without_a_common_seed_keep_their_verdicts(tmp_path: Path):
    shares = {"early_exit": (0.5,) * 4, "multi_model": (0.9,) * 4}
    folder = tmp_path / "s"
    entries = []
    for task, seeds in zip(TASKS, ((0, 1, 2), (3, 4, 5)), strict=True):
        make_study(folder, shares, seeds, (task,), change_bank=set_right_rows(shares))
        entries += json.loads((folder / "plan.json").read_text())["cells"]
    write_plan(folder, entries)
    average = aggregate(folder, 200)["groups"][0]["average"]
    assert average["methods"] == []
    finding = find(average["findings"], claim="multi_model_exits")
    assert finding["verdict"] == "no interval"
    assert finding["by_task"] == dict.fromkeys(TASKS, "held")
    finding = find(average["findings"], claim="early_exit_cascade")
    assert finding["verdict"] == "refuted"
