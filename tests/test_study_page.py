"""The page of a study: its words follow from its numbers, whatever they are."""

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from study_files import make_entry, make_study, write_cell, write_plan, write_status

from sweet_jax.report import (
    ReportError,
    format_study,
    format_study_markdown,
    read_study_record,
    study_page,
    study_tables,
    tables,
    write_study_report,
)
from sweet_jax.report.__main__ import main as report_main
from sweet_jax.report.study_plots import plot_sizes, plot_study
from sweet_jax.report.study_record import list_headlines, list_views
from sweet_jax.report.study_words import describe_study
from sweet_jax.study.__main__ import main

METHODS = ("sweet", "early_exit", "multi_model", "sweet(a=0.2)")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, list[str]]:
    """A study of two tasks, reported by its command; what it printed."""
    folder = tmp_path_factory.mktemp("written") / "study"
    choice = {
        "task": "rte",
        "encoder": "tiny",
        "train_size": 1000,
        "method": "sweet",
        "tried": [{"rate": 1e-4, "score": 0.71}, {"rate": 3e-4, "score": 0.72}],
        "chosen": 3e-4,
    }
    # Of an older plan the one, of exits and encoder the other.
    pair = {
        "rate": 1e-4,
        "exit_rate": 1e-3,
        "score": 0.73,
    }
    both = choice | {"tried": [pair], "chosen": 1e-4, "chosen_exit": 1e-3}
    make_study(
        folder,
        METHODS,
        seeds=(0, 1),
        tasks=("rotten_tomatoes", "rte"),
        sizes=(250,),
        choices=[choice, both],
    )
    plan = json.loads((folder / "plan.json").read_text())
    failed, missing = (make_entry("rte", 250, "sweet", seed) for seed in (7, 8))
    write_status(folder / "cells" / failed["name"], "failed", "the loss is not finite")
    write_plan(folder, [*plan["cells"], failed, missing], plan["choices"])
    printed = subprocess.run(
        [sys.executable, "-m", "sweet_jax.study", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    ).stdout
    return folder, printed.splitlines()


@pytest.fixture
def record(written: tuple[Path, list[str]]) -> dict[str, Any]:
    """Its study.json, to be changed."""
    return read_study_record(written[0])


def make_view(record: dict[str, Any], is_average: bool = False) -> dict[str, Any]:
    """Leaves the first task, or average, alone in a record, and returns it."""
    group = record["groups"][0]
    record["groups"] = [group]
    record["failed"], record["missing"] = [], []
    if is_average:
        return group["average"]
    group["average"] = None
    group["settings"] = group["settings"][:1]
    return group["settings"][0]


def add_size(record: dict[str, Any], train_size: int) -> None:
    """Adds the first group again with another number of training examples."""
    group = copy.deepcopy(record["groups"][0]) | {"train_size": train_size}
    record["groups"].append(group)


def set_finding(finding: dict[str, Any], *numbers: tuple[float, Any, str]) -> None:
    """Sets mean, interval and verdict of a finding's comparisons."""
    for row, (mean, interval, verdict) in zip(
        finding["comparisons"], numbers, strict=True
    ):
        row |= {"mean": mean, "over_seeds_and_rows": interval, "verdict": verdict}


def test_command_writes_page_pictures_and_tables(written: tuple[Path, list[str]]):
    folder, lines = written
    assert lines[0] == "study a study"
    told = [line.removeprefix("wrote ") for line in lines if line.startswith("wrote ")]
    assert told[0].endswith("study.json")
    assert all(Path(path).is_file() for path in told)
    summary = lines[: lines.index(f"wrote {told[0]}")]
    assert max(map(len, summary)) <= 100
    page = Page((folder / "study.html").read_text(encoding="utf-8"))
    assert "://" not in page.source
    # Two pictures of the average and of each task.
    assert len(page.values("img", "src")) == 6
    pictures = {path.name for path in (folder / "plots").iterdir()}
    assert pictures == {
        "study.png",
        "curves-rotten_tomatoes-tiny-n250.png",
        "curves-rte-tiny-n250.png",
        "differences-average-of-2-tasks-tiny-n250.png",
        "differences-rotten_tomatoes-tiny-n250.png",
        "differences-rte-tiny-n250.png",
    }
    for picture in pictures:
        content = (folder / "plots" / picture).read_bytes()
        assert int.from_bytes(content[16:20]) == 1600


def test_words_come_first_and_cells_that_are_not_there_are_named(written):
    folder, lines = written
    page = Page((folder / "study.html").read_text(encoding="utf-8"))
    text = page.text
    opening = "Of 18 cells 1 failed and 1 not yet run: averages are over the seeds"
    assert opening in text
    assert opening in " ".join(lines)
    assert text.index(opening) < text.index("Speed against accuracy")
    # One paragraph, about the average.
    assert page.tags.index("p") < page.tags.index("h2")
    assert text.count("Averaged over rotten_tomatoes, rte (tiny, ") == 1
    for expected in (
        "the loss is not finite",
        "not yet run",
        "0.0001: 0.710",
        "0.0001 and exits 0.001: 0.730",
    ):
        assert expected in text
        assert any(expected in line for line in lines)


def test_tables_show_the_numbers(record: dict[str, Any]):
    view = list_views(record)[0]
    sweet = next(m for m in view.methods if m["label"] == "sweet")
    score = sweet["exits"][1]["score"]
    half = (score["interval"][1] - score["interval"][0]) / 2
    row = next(r for r in study_tables.make_exit_table(view).rows if r[0] == "sweet")
    assert row[3] == f"{score['mean']:.3f} ±{half:.3f}"
    pair = next(p for p in view.content["differences"] if p["of"] == "multi_model")
    low, high = (100 * bound for bound in pair["exits"][0]["over_seeds_and_rows"])
    expected = f"{100 * pair['exits'][0]['mean']:+.1f} ({low:+.1f} to {high:+.1f})"
    table = study_tables.make_difference_table(view)
    assert table.rows[0][:3] == ("multi_model - early_exit", "0, 1", expected)
    cascades = study_tables.make_cascade_table(view)
    assert cascades.header[2:] == ("1.5x", "2x", "3x", "4x", "100x")
    assert all(row[-1] == tables.UNREACHABLE for row in cascades.rows)
    claims = study_tables.make_claim_table(view, record)
    assert len([row for row in claims.rows if row[0]]) == 6
    assert len(claims.rows) == 6 + 1 + 1 + 4 + 2 + 4  # comparisons, and exit by exit
    [task, *_] = (view for view in list_views(record) if not view.is_average)
    training = study_tables.make_training_table(task)
    assert ("multi_model", "100 (1.00)", "10 (1.00)", "1,500 (1.00)", "69 (3.00)") in (
        training.rows
    )
    assert study_tables.make_size_tables(record) == []
    add_size(record, 1000)
    sizes = study_tables.make_size_tables(record)
    assert [table.caption.partition(",")[0] for table in sizes] == [
        "average of 2 tasks",
        "rotten_tomatoes",
        "rte",
    ]
    assert [row[:2] for row in sizes[0].rows[:2]] == [
        ("early_exit", "250"),
        ("early_exit", "1,000"),
    ]


def test_sentences_follow_from_the_numbers(record: dict[str, Any]):
    view = make_view(record)
    findings = {finding["claim"]: finding for finding in view["findings"]}
    set_finding(findings["sweet_early_exits"], (0.012, [0.004, 0.02], "held"))
    findings["sweet_early_exits"]["verdict"] = "held"
    for row, verdict in zip(
        findings["sweet_early_exits"]["by_exit"], ("held", "undecided"), strict=True
    ):
        row["verdict"] = verdict
    set_finding(
        findings["sweet_fast"],
        (-0.007, [-0.02, -0.0004], "did not hold"),
        (0.0001, [-0.01, 0.0102], "undecided"),
    )
    findings["sweet_fast"]["verdict"] = "did not hold"
    seam = findings["seam"]
    set_finding(seam, (0.0, [-0.002, 0.002], "held"), (-0.001, [-0.02, 0.01], "x"))
    seam["verdict"] = "undecided"
    view["findings"] = [
        findings[name] for name in ("sweet_early_exits", "sweet_fast", "seam")
    ]
    [paragraph] = describe_study(record)
    assert paragraph.text == (
        "On rotten_tomatoes (tiny, 250 training examples, accuracy), 2 of the paper's"
        " claims were judged (1 held, 1 did not hold): sweet beats early_exit at the"
        " early exits (exits 0, 1): held (difference +1.2 points, 95 % interval +0.4 to"
        " +2.0; by exit: held at 0, undecided at 1); sweet beats both at fast speeds"
        " (3x, 4x): did not hold (against early_exit difference -0.7 points, 95 %"
        " interval -2.0 to -0.04; against multi_model difference 0.0 points, 95 %"
        " interval -1.0 to +1.0); sweet(a=0.2) is no worse than sweet at the early"
        " exits and no worse than early_exit at the late ones, to within 1 point:"
        " undecided (against sweet at exits 0, 1 difference 0.0 points, 95 % interval"
        " -0.2 to +0.2; against early_exit at exits 2, 3 difference -0.1 points, 95 %"
        " interval -2.0 to +1.0)."
    )
    assert paragraph.text in format_study_markdown(record)


def test_one_seed_is_said_and_draws(tmp_path: Path, capsys):
    folder = make_study(tmp_path / "study", METHODS[:3], seeds=(4,))
    assert main([str(folder)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(none with a verdict: of one seed no interval over seeds exists)" in text
    assert "points, one seed: no interval)" in text
    assert "±" not in text.replace("± half", "")
    page = Page((folder / "study.html").read_text(encoding="utf-8"))
    assert len(page.values("img", "src")) == 2
    assert "held" not in page.text
    # Again from a copy elsewhere: the same, byte for byte.
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert main([str(copied)]) == 0
    for path in folder.rglob("*"):
        if path.is_file():
            again = (copied / path.relative_to(folder)).read_bytes()
            assert again == path.read_bytes(), path.name


def test_a_study_of_one_method_or_of_nothing_has_a_page(tmp_path: Path, capsys):
    folder = make_study(tmp_path / "one", ("sweet",), seeds=(0,))
    assert main([str(folder)]) == 0
    assert "no claim of the paper can be judged" in capsys.readouterr().out
    page = Page((folder / "study.html").read_text(encoding="utf-8"))
    assert len(page.values("img", "src")) == 1
    write_plan(tmp_path / "none", [make_entry("rte", 1000, "sweet", 0)])
    assert main([str(tmp_path / "none")]) == 0
    assert "No cell is finished." in capsys.readouterr().out


def test_degenerate_scores_and_partial_averages_are_noted(record: dict[str, Any]):
    average = make_view(record, is_average=True)
    average["methods"][0]["tasks"] = ["rte"]
    record["groups"][0]["settings"][0]["methods"][1]["degenerate"] = [
        {"seed": 1, "exits": [0, 2]}
    ]
    notes = study_page.make_notes(record)
    assert (
        "average of 2 tasks, tiny, 250 training examples: early_exit is averaged over"
        " rte alone."
    ) in notes
    assert any(
        "multi_model, seed 1, exit 0, 2 is undefined (it answers one class)" in note
        for note in notes
    )


def test_a_row_over_fewer_tasks_names_them_everywhere(tmp_path: Path):
    tasks = ("rotten_tomatoes", "rte")
    folder = make_study(tmp_path, ("sweet", "early_exit"), tasks=tasks, seeds=(0, 1))
    entries = json.loads((folder / "plan.json").read_text())["cells"]
    entries += [make_entry("rte", 1000, "sweet(a=0.2)", seed) for seed in (0, 1)]
    for entry in entries[-2:]:
        write_cell(folder, entry)
    write_plan(folder, entries)
    assert main([str(folder)]) == 0
    record = read_study_record(folder)
    [average, *_] = list_views(record)
    shown = list(study_tables.list_main_tables(record))
    shown += [
        study_tables.make_area_table(average),
        study_tables.make_claim_table(average, record),
    ]
    add_size(record, 2000)
    shown.append(study_tables.make_size_tables(record)[0])
    assert len(shown) == 8
    for table in shown:
        column = table.header.index("tasks")
        for row in table.rows:
            is_partial = any("a=0.2" in cell for cell in row)
            assert row[column] == "rte" if is_partial else ", ".join(tasks), row
    # In words the claims about sweet(a=0.2) alone.
    [paragraph] = describe_study(read_study_record(folder))
    for sentence in paragraph.sentences:
        assert sentence.numbers.count("over rte alone") == (
            2 if "sweet(a=0.2)" in sentence.claim else 0
        )
    # Every method has the one task of the other views.
    for view in list_views(record):
        assert (
            view.is_average or "tasks" not in study_tables.make_exit_table(view).header
        )


def test_page_escapes_everything_a_user_can_name(record: dict[str, Any]):
    evil = "</td><script>alert(1)</script>\"'& $\\frac{$ | x"
    view = make_view(record)
    record["name"] = record["groups"][0]["encoder"] = view["task"] = evil
    view["tasks"] = [evil]
    for row in [*view["methods"], *view["differences"]]:
        row["tasks"] = [evil]
    record["missing"] = [evil]
    view["methods"][2]["label"] = evil
    compared = [row for f in view["findings"] for row in f["comparisons"]]
    compared += [row for f in view["findings"] for row in f["by_exit"]]
    for pair in [*view["differences"], *compared]:
        pair["of"] = evil if pair["of"] == "sweet" else pair["of"]
        pair["minus"] = evil if pair["minus"] == "sweet" else pair["minus"]
    [headline] = list_headlines(record)
    pictures = [picture for _, picture in plot_study(record)]
    page = Page(study_page.make_study_html(record, {headline.title: pictures}, []))
    assert "script" not in page.tags
    assert page.text.count(evil) > 20
    assert {picture.name for picture in pictures} == {
        "study",
        "differences-td-script-alert-1-script-frac-x-td-script-alert-1-script-frac-x"
        "-n250",
    }
    # A bar in a name is no cell's end.
    table = tables.format_markdown(study_tables.make_exit_table(headline))
    rows = [re.split(r"(?<!\\)\|", line) for line in table.splitlines()[2:]]
    assert {len(cells) for cells in rows} == {2 + 2 + 4 + 1}


@pytest.mark.long
def test_several_sizes_have_a_picture_and_names_of_their_own(record: dict[str, Any]):
    make_view(record)
    assert plot_sizes(record) == []
    add_size(record, 1000)
    add_size(record, 1000)  # of another spelling of the same name
    record["groups"][2]["encoder"] = "tiny!"
    names = [picture.name for _, picture in plot_study(record)]
    assert names[::2] == [
        "study",
        "curves-rotten_tomatoes-tiny-n1000",
        "curves-rotten_tomatoes-tiny-n1000-2",
    ]
    assert [p.name for p in plot_sizes(record)] == ["sizes-rotten_tomatoes-tiny-n250"]


@pytest.mark.slow
def test_report_needs_no_jax_and_future_fields_do_no_harm(record, tmp_path: Path):
    make_view(record)
    for name, content in (("known", record), ("future", {**record, "new": [1]})):
        (tmp_path / name).mkdir()
        text = json.dumps(content)
        (tmp_path / name / "study.json").write_text(text, encoding="utf-8")
    code = (
        "import sys, pathlib\n"
        "from sweet_jax.report import write_study_report\n"
        "write_study_report(pathlib.Path(sys.argv[1]))\n"
        "heavy = {'jax', 'scipy', 'jaxtyping', 'flax'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "future")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == "[]"
    for path in write_study_report(tmp_path / "known"):
        other = tmp_path / "future" / path.relative_to(tmp_path / "known")
        assert other.read_bytes() == path.read_bytes(), path.name


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, record, capsys):
    assert main([str(tmp_path)]) == 2
    assert report_main([str(tmp_path)]) == 2
    write_plan(tmp_path, [])
    assert report_main([str(tmp_path)]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"error: .* is not a study .no plan.json in it.: give .*", first
    )
    assert "is not a work directory" in second
    assert "holds a study: python -m sweet_jax.study" in third
    with pytest.raises(ReportError, match=r"has no study\.json"):
        write_study_report(tmp_path)
    newer = copy.deepcopy(record) | {"schema": 3}
    (tmp_path / "study.json").write_text(json.dumps(newer))
    with pytest.raises(ReportError, match="has schema 3, this version reads 2"):
        write_study_report(tmp_path)
    del record["margin"]
    (tmp_path / "study.json").write_text(json.dumps(record))
    with pytest.raises(ReportError, match=r"study\.json lacks margin"):
        write_study_report(tmp_path)


def test_summary_fits_the_terminal_whatever_the_names(record: dict[str, Any]):
    record["missing"] = ["a-cell-with-a-name-" + "x" * 60, "and " * 40]
    assert max(map(len, format_study(record).splitlines())) <= 100
