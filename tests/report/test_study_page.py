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
from command_line import run_command
from html_page import Page
from study_files import (
    METHODS,
    make_entry,
    make_study,
    write_plan,
)
from study_records import make_view

from sweet_jax.report import (
    ReportError,
    format_study,
    study_page,
    study_tables,
    tables,
    write_study_report,
)
from sweet_jax.report.study_plots import plot_study
from sweet_jax.report.study_record import list_headlines


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


# Right rows of 90: 2 more are undecided, 9 and more decided.


def test_one_seed_is_said_and_draws(tmp_path: Path, capsys):
    folder = make_study(tmp_path / "study", METHODS[:3], seeds=(4,))
    assert run_command("study", str(folder)) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(none with a verdict: of one seed no interval over seeds exists)" in text
    assert "(one seed: no interval)" in text
    assert "±" not in text.replace("± half", "")
    page = Page((folder / "study.html").read_text(encoding="utf-8"))
    assert len(page.values("img", "src")) == 2
    assert "held" not in page.text
    # Again from a copy elsewhere: the same, byte for byte.
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert run_command("study", str(copied)) == 0
    for path in folder.rglob("*"):
        if path.is_file():
            again = (copied / path.relative_to(folder)).read_bytes()
            assert again == path.read_bytes(), path.name


def test_a_study_of_one_method_or_of_nothing_has_a_page(tmp_path: Path, capsys):
    folder = make_study(tmp_path / "one", ("sweet",), seeds=(0,))
    assert run_command("study", str(folder)) == 0
    assert "no claim of the paper can be judged" in capsys.readouterr().out
    page = Page((folder / "study.html").read_text(encoding="utf-8"))
    assert len(page.values("img", "src")) == 1
    write_plan(tmp_path / "none", [make_entry("rte", 1000, "sweet", 0)])
    assert run_command("study", str(tmp_path / "none")) == 0
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
    assert run_command("study", str(tmp_path)) == 2
    assert run_command("report", str(tmp_path)) == 2
    write_plan(tmp_path, [])
    assert run_command("report", str(tmp_path)) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"error: .* is not a study, since it has no plan.json: give .*", first
    )
    assert "is not a work directory" in second
    assert "holds a study: sweet-jax study" in third
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
