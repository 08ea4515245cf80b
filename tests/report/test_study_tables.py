"""Tables of a study show its numbers, and over which tasks they are."""

import json
from pathlib import Path
from typing import Any

from command_line import run_command
from study_files import (
    make_entry,
    make_study,
    write_cell,
    write_plan,
)
from study_records import add_size

from sweet_jax.report import (
    read_study_record,
    study_tables,
    tables,
)
from sweet_jax.report.study_record import list_views
from sweet_jax.report.study_words import describe_study


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


def test_a_row_over_fewer_tasks_names_them_everywhere(tmp_path: Path):
    tasks = ("rotten_tomatoes", "rte")
    folder = make_study(tmp_path, ("sweet", "early_exit"), tasks=tasks, seeds=(0, 1))
    entries = json.loads((folder / "plan.json").read_text())["cells"]
    entries += [make_entry("rte", 1000, "sweet(a=0.2)", seed) for seed in (0, 1)]
    for entry in entries[-2:]:
        write_cell(folder, entry)
    write_plan(folder, entries)
    assert run_command("study", str(folder)) == 0
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
