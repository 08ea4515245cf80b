"""Words of a study follow from its numbers, whatever they are."""

from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from study_files import (
    aggregate,
    make_study,
    set_right_rows,
)
from study_records import make_view, set_row

from sweet_jax.report import (
    format_study,
    format_study_markdown,
    study_page,
)
from sweet_jax.report.study_record import list_views
from sweet_jax.report.study_words import describe_study

CASES = {
    "refuted": ((0.4, 0.9, 0.9, 0.52), ["refuted", "held", "held", "undecided"]),
    "held": ((0.7, 0.8, 0.9, 0.95), ["held"] * 4),
    "undecided": ((0.9, 0.52, 0.52, 0.52), ["held", *["undecided"] * 3]),
}


def test_sentences_follow_from_the_numbers(record: dict[str, Any]):
    view = make_view(record)
    findings = {finding["claim"]: finding for finding in view["findings"]}
    early, seam = findings["sweet_early_exits"], findings["seam"]
    early |= {"verdict": "held", "mean_verdict": "held"}
    [whole] = early["comparisons"]
    set_row(whole, 0.012, [0.004, 0.02], "held")
    set_row(whole["points"][0], 0.02, [0.01, 0.03], "held")
    set_row(whole["points"][1], 0.004, [0.0002, 0.0078], "held")
    seam |= {"verdict": "refuted", "mean_verdict": "undecided"}
    first, last = seam["comparisons"]
    set_row(first, 0.0, [-0.002, 0.002], "held")
    set_row(first["points"][0], 0.014, [-0.002, 0.03], "held")
    set_row(first["points"][1], -0.014, [-0.023, -0.005], "refuted")
    set_row(last, -0.001, [-0.02, 0.018], "undecided")
    set_row(last["points"][0], -0.001, [-0.02, 0.018], "undecided")
    set_row(last["points"][1], -0.001, None, "no interval")
    view["findings"] = [early, seam]
    [paragraph] = describe_study(record)
    assert paragraph.lead == (
        "On rotten_tomatoes (tiny, 250 training examples, accuracy), cascades by"
        " confidence, differences in points with their 95 % intervals; 1 of the"
        " paper's claims was judged (1 held; by the means alone 1 held):"
    )
    # What is refuted comes first, of the claims and within one.
    assert [sentence.text for sentence in paragraph.sentences] == [
        "sweet(a=0.2) is no worse than sweet at the early exits and no worse than"
        " early_exit at the late ones, to within 1 point: refuted; exit 1 against"
        " sweet: refuted, -1.4 (-2.3 to -0.5); exit 0 against sweet: held, +1.4 (-0.2"
        " to +3.0); the mean's verdict against sweet: held, 0.0 (-0.2 to +0.2); exit 2"
        " against early_exit: undecided, -0.1 (-2.0 to +1.8); exit 3 against"
        " early_exit: no verdict, -0.1 (one seed: no interval); the mean's verdict"
        " against early_exit: undecided, -0.1 (-2.0 to +1.8)",
        "sweet beats early_exit at the early exits: held at every early exit; exit 0:"
        " held, +2.0 (+1.0 to +3.0); exit 1: held, +0.4 (+0.02 to +0.8); the mean's"
        " verdict: held, +1.2 (+0.4 to +2.0)",
    ]


def list_outputs(record: dict[str, Any]) -> dict[str, str]:
    """Returns the words of a study: page, Markdown and terminal, white space apart."""
    without_pictures = {view.title: [] for view in list_views(record)}
    page = study_page.make_study_html(record, without_pictures, [])
    texts = {
        "page": Page(page).text,
        "markdown": format_study_markdown(record, None),
        "terminal": format_study(record),
    }
    # The page's verdicts are bold, and its parts apart.
    return {n: " ".join(text.split()).replace(" ;", ";") for n, text in texts.items()}


def find_claims(claim: str, *views: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the finding about a claim of each view."""
    return [f for view in views for f in view["findings"] if f["claim"] == claim]


def format_row(row: dict[str, Any]) -> str:
    """Returns what the words say of a comparison or point, from its numbers."""
    low, high = (f"{100 * bound:+.1f}" for bound in row["over_seeds_and_rows"])
    return f"{row['verdict']}, {100 * row['mean']:+.1f} ({low} to {high})"


@pytest.mark.parametrize("verdict", CASES)
def test_a_claim_has_a_verdict_at_every_exit(verdict: str, tmp_path: Path):
    shares, verdicts = CASES[verdict]
    rows = {"early_exit": (0.5,) * 4, "multi_model": shares}
    folder = make_study(tmp_path / "s", rows, change_bank=set_right_rows(rows))
    record = aggregate(folder, 200)
    [setting] = record["groups"][0]["settings"]
    [finding] = find_claims("multi_model_exits", setting)
    [whole] = finding["comparisons"]
    assert [row["verdict"] for row in whole["points"]] == verdicts
    # The mean alone would say the same of all three.
    assert (finding["verdict"], finding["mean_verdict"]) == (verdict, "held")
    opening = "multi_model beats early_exit, each exit alone: "
    opening += "held at every exit" if verdict == "held" else verdict
    points = [f"exit {i}: {format_row(row)}" for i, row in enumerate(whole["points"])]
    mean = f"the mean's verdict: {format_row(whole)}"
    for name, text in list_outputs(record).items():
        expected = f"{opening}; {'; '.join(points)}; {mean}"
        assert text.count(expected) == 1, name
        assert ("every exit;" in text) == (verdict == "held"), name


def test_an_average_names_what_a_task_refutes_first(tmp_path: Path):
    rows = {
        "early_exit": (0.5,) * 4,
        "multi_model": (0.9,) * 4,
        "multi_model on rte": (0.4, 0.9, 0.9, 0.9),
    }
    folder = make_study(
        tmp_path / "s",
        ("early_exit", "multi_model"),
        tasks=("rotten_tomatoes", "rte"),
        change_bank=set_right_rows(rows),
    )
    record = aggregate(folder, 200)
    group = record["groups"][0]
    views = (group["average"], *group["settings"])
    [average, _, rte] = find_claims("multi_model_exits", *views)
    assert {row["verdict"] for c in average["comparisons"] for row in c["points"]} == {
        "held"
    }
    assert average["verdict"] == "refuted"
    hidden = rte["comparisons"][0]["points"][0]
    expected = (
        "multi_model beats early_exit, each exit alone: refuted; exit 0 on rte:"
        f" {format_row(hidden)}; exit 0: held, "
    )
    for name, text in list_outputs(record).items():
        assert expected in text, name
        assert "; by task: rotten_tomatoes held, rte refuted" in text, name
