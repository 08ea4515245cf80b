"""A job stopped anywhere goes on where it was, and knows its own files."""

import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.inference.inputs import InputRow
from sweet_jax.inference.job import Job, JobError

SETTINGS = {"model": "m", "thresholds": (0.5, "full")}


def make_rows(count: int, bad: tuple[int, ...] = ()) -> list[InputRow]:
    """Returns rows, those of the lines in `bad` unusable."""
    return [
        InputRow(i, (), "is empty") if i in bad else InputRow(i, (f"text {i}",))
        for i in range(1, count + 1)
    ]


def answer(rows: list[InputRow]) -> str:
    """Answers depend on the chunk, as those of a model may."""
    return "".join(f"{row.line} of {len(rows)}: {row.texts[0]}\n" for row in rows)


def run(
    output: Path, rows: list[InputRow], chunk_rows: int = 3, strict: bool = False
) -> Job:
    job = Job(output, SETTINGS, chunk_rows)
    try:
        job.run(rows, answer, "head\n", strict, lambda rows: None)
    finally:
        job.close()
    return job


def read_files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


class Killed(Exception):  # noqa: N818
    """Ends the process, as far as the files are concerned."""


@given(
    count=st.integers(1, 12),
    bad=st.sets(st.integers(1, 12)),
    stops=st.lists(st.integers(0, 9), max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_stopped_anywhere_it_leaves_the_files_of_one_run(
    count, bad, stops, tmp_path_factory
):
    rows = make_rows(count, tuple(bad))
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("whole", "parts"))
    run(whole / "out", rows)
    for stop in stops:
        ticks = itertools.count()

        def answer_until(rows: list[InputRow], stop=stop, ticks=ticks) -> str:
            if next(ticks) == stop:
                raise Killed
            return answer(rows)

        job = Job(parts / "out", SETTINGS, 3)
        try:
            job.run(rows, answer_until, "head\n", False, lambda rows: None)
        except Killed:
            # What was written past the last note.
            with (parts / "out").open("a") as file:
                file.write("half a li")
            with (parts / "out.rejected.jsonl").open("a") as file:
                file.write('{"line": 9')
        finally:
            job.close()
    run(parts / "out", rows)
    assert read_files(parts) == read_files(whole)
    assert (whole / "out.rejected.jsonl").exists() == bool(bad & set(range(count + 1)))


def test_what_is_done_is_not_done_again(tmp_path):
    rows = make_rows(8, (2,))
    answered = []

    def note(rows: list[InputRow]) -> str:
        if len(answered) == 2:
            raise Killed
        answered.append([row.line for row in rows])
        return answer(rows)

    shown: list[int] = []
    job = Job(tmp_path / "out", SETTINGS, 3)
    with pytest.raises(Killed):
        job.run(rows, note, "", False, shown.append)
    job.close()
    assert (answered, shown) == ([[1, 3], [4, 5, 6]], [3, 6])
    assert job.progress.rows == 6
    job = Job(tmp_path / "out", SETTINGS, 3)
    answered.clear()
    job.run(rows, note, "", False, shown.append)
    job.close()
    assert answered == [[7, 8]]
    # Skipped rows count as progress, too.
    assert shown == [3, 6, 3, 6, 8]
    lines = (tmp_path / "out").read_text().splitlines()
    assert [int(line.split()[0]) for line in lines] == [1, 3, 4, 5, 6, 7, 8]
    assert json.loads((tmp_path / "out.rejected.jsonl").read_text()) == {
        "line": 2,
        "problem": "is empty",
    }


def test_a_finished_job_is_left_alone(tmp_path):
    rows = make_rows(7)
    run(tmp_path / "out", rows)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert run(tmp_path / "out", rows).progress.finished
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "rows",
    [make_rows(6), make_rows(8), make_rows(7, (1,)), []],
    ids=["cut", "grown", "changed", "empty"],
)
@pytest.mark.parametrize("finished", [True, False])
def test_an_input_that_changed_is_refused(tmp_path, rows, finished):
    if finished:
        run(tmp_path / "out", make_rows(7))
    else:
        with pytest.raises(JobError, match="line 7"):
            run(tmp_path / "out", make_rows(7, (7,)), strict=True)
        if rows[:6] == make_rows(6):
            return  # The rows that are done are the same.
    before = read_files(tmp_path)
    with pytest.raises(JobError, match=r"is not what --output=.* was begun with"):
        run(tmp_path / "out", rows)
    assert read_files(tmp_path) == before


def test_strict_stops_at_the_row_and_goes_on_when_it_is_mended(tmp_path):
    with pytest.raises(JobError, match=r"^line 5 is empty$"):
        run(tmp_path / "out", make_rows(7, (5, 6)), strict=True)
    assert (tmp_path / "out").read_text().count("of 3") == 3
    run(tmp_path / "out", make_rows(7), strict=True)
    (tmp_path / "whole").mkdir()
    run(tmp_path / "whole" / "out", make_rows(7))
    whole = (tmp_path / "whole" / "out").read_text()
    assert (tmp_path / "out").read_text() == whole


def test_two_processes_do_not_write_to_one_output(tmp_path):
    first = Job(tmp_path / "out", SETTINGS, 3)
    with pytest.raises(JobError, match="another process writes to --output="):
        Job(tmp_path / "out", SETTINGS, 3)
    first.close()
    run(tmp_path / "out", make_rows(2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("out", "1", r"out has 1 bytes, \d+ were written: name another, or delete it"),
        ("out.rejected.jsonl", "", r"rejected.jsonl has 0 bytes, \d+ were written"),
        ("out.job.json", "{", "is damaged"),
        ("out.job.json", "[1]", "is damaged"),
        ("out.job.json", '{"schema": 1}', "is damaged"),
        ("out.job.json", '{"schema": 2}', "has schema 2, this version reads 1"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    run(tmp_path / "out", make_rows(4, (2,)))
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(JobError, match=message):
        run(tmp_path / "out", make_rows(4, (2,)))
    # The lock is given back.
    with pytest.raises(JobError, match=message):
        run(tmp_path / "out", make_rows(4, (2,)))


def test_other_settings_are_refused_with_what_differs(tmp_path):
    run(tmp_path / "out", make_rows(4))
    message = r"thresholds was \[0.5, 'full'\], now \[0.6\]: name another"
    with pytest.raises(JobError, match=message):
        Job(tmp_path / "out", {**SETTINGS, "thresholds": (0.6,)}, 3)
    with pytest.raises(JobError, match="chunk_rows was 3, now 4"):
        Job(tmp_path / "out", SETTINGS, 4)
    with pytest.raises(JobError, match=r"more was \(none\), now 1"):
        Job(tmp_path / "out", {**SETTINGS, "more": 1}, 3)


def test_a_file_of_somebody_else_is_not_touched(tmp_path):
    (tmp_path / "out").write_text("mine\n")
    with pytest.raises(JobError, match="exists and is not of this command"):
        run(tmp_path / "out", make_rows(2))
    assert read_files(tmp_path) == {"out": "mine\n"}


def test_the_note_comes_after_the_answers(tmp_path, monkeypatch):
    """At every sync to the disk, what is noted as done is in the files already."""
    real = os.fsync

    def check(descriptor: int) -> None:
        real(descriptor)
        noted = json.loads((tmp_path / "out.job.json").read_text())["output_bytes"]
        assert (tmp_path / "out").stat().st_size >= noted

    monkeypatch.setattr(os, "fsync", check)
    run(tmp_path / "out", make_rows(9))
