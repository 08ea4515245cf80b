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
from study_files import (
    make_entry,
    make_study,
    set_right_rows,
    write_cell,
    write_plan,
    write_status,
)

from sweet_jax.commands.report import main as report_main
from sweet_jax.commands.study import main
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
from sweet_jax.report.study_plots import plot_sizes, plot_study
from sweet_jax.report.study_record import list_headlines, list_views
from sweet_jax.report.study_words import describe_study
from sweet_jax.study.aggregate import aggregate_study

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
        [sys.executable, "-m", "sweet_jax", "study", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
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


def set_row(row: dict[str, Any], mean: float, interval: Any, verdict: str) -> None:
    """Sets the difference, the interval and the verdict of a comparison or point."""
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
    # Each exit or speed-up, and the mean of each comparison.
    assert len(claims.rows) == (4 + 1) + (4 + 1) + (2 + 1) * 6
    assert [row[2] for row in claims.rows[3:6]] == [
        "exit 3",
        "mean of exits 0, 1, 2, 3",
        "1.5x",
    ]
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
        "markdown": format_study_markdown(record),
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


# Right rows of 90: 2 more are undecided, 9 and more decided.
CASES = {
    "refuted": ((0.4, 0.9, 0.9, 0.52), ["refuted", "held", "held", "undecided"]),
    "held": ((0.7, 0.8, 0.9, 0.95), ["held"] * 4),
    "undecided": ((0.9, 0.52, 0.52, 0.52), ["held", *["undecided"] * 3]),
}


@pytest.mark.parametrize("verdict", CASES)
def test_a_claim_has_a_verdict_at_every_exit(verdict: str, tmp_path: Path):
    shares, verdicts = CASES[verdict]
    rows = {"early_exit": (0.5,) * 4, "multi_model": shares}
    folder = make_study(tmp_path / "s", rows, change_bank=set_right_rows(rows))
    record = aggregate_study(folder, 200)
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
    record = aggregate_study(folder, 200)
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


def test_names_never_command_a_terminal(tmp_path: Path, capsys):
    evil = "\x1b]0;owned\x07\x9b31m\u202e\r\n# "
    shown = r"\x1b]0;owned\x07\x9b31m\u202e\r\n# "
    methods = ("early_exit", f"sweet(a={evil})")
    folder = make_study(tmp_path / "s", methods, seeds=(0, 1), tasks=(f"t{evil}",))
    cells = json.loads((folder / "plan.json").read_text())["cells"]
    for path in (folder / "cells").glob("*-early_exit-s1-*"):
        write_status(path, "failed", f"no {evil}")
    # Half of a character in two is no text at all.
    names = {"task": evil, "encoder": f"{evil}\ud800", "train_size": 1, "method": evil}
    write_plan(folder, cells, [{**names, "tried": [], "chosen": 1e-4}])
    aggregated = aggregate_study(folder, 20)
    assert main([str(folder)]) == 0
    summary, _, _ = capsys.readouterr().out.partition("\nwrote")
    files = [folder / name for name in ("study.json", "study.md", "study.html")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    for text in (*texts, summary, format_study(aggregated)):
        assert all(c.isprintable() or c == "\n" for c in text)
    for text in (texts[1], summary):
        assert f"sweet(a={shown}) - early_exit" in text
    assert max(map(len, summary.splitlines())) <= 100


def test_one_seed_is_said_and_draws(tmp_path: Path, capsys):
    folder = make_study(tmp_path / "study", METHODS[:3], seeds=(4,))
    assert main([str(folder)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(none with a verdict: of one seed no interval over seeds exists)" in text
    assert "(one seed: no interval)" in text
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
    # In words the claims about sweet(a=0.2) alone: two exits and a mean of two methods.
    [paragraph] = describe_study(read_study_record(folder))
    for sentence in paragraph.sentences:
        assert sentence.numbers.count("over rte alone") == (
            6 if "sweet(a=0.2)" in sentence.claim else 0
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
    compared += [point for row in compared for point in row["points"]]
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
        cwd=Path(__file__).parents[2],
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
    assert "holds a study: python -m sweet_jax study" in third
    with pytest.raises(ReportError, match=r"has no study\.json"):
        write_study_report(tmp_path)
    newer = copy.deepcopy(record) | {"schema": 4}
    (tmp_path / "study.json").write_text(json.dumps(newer))
    with pytest.raises(ReportError, match="has schema 4, this version reads 3"):
        write_study_report(tmp_path)
    del record["margin"]
    (tmp_path / "study.json").write_text(json.dumps(record))
    with pytest.raises(ReportError, match=r"study\.json lacks margin"):
        write_study_report(tmp_path)


def test_summary_fits_the_terminal_whatever_the_names(record: dict[str, Any]):
    record["missing"] = ["a-cell-with-a-name-" + "x" * 60, "and " * 40]
    assert max(map(len, format_study(record).splitlines())) <= 100
