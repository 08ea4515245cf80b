"""A job stopped anywhere goes on where it was, and knows its own files."""

import itertools
import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.serving import job as job_module
from sweet_jax.serving import job_files
from sweet_jax.serving.inputs import InputRow
from sweet_jax.serving.job import Job
from sweet_jax.serving.job_files import JobError, JobFile

NAMES = ("out", "out.rejected.jsonl", "out.job.json")
SETTINGS = {"model": "m", "thresholds": (0.5, "full")}


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_disks():
    """No test here cuts the power, and a disk takes 10 ms each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


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
            for name, text in (("out", "half a li"), ("out.rejected.jsonl", '{"li')):
                if (parts / name).exists():
                    with (parts / name).open("a") as file:
                        file.write(text)
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
    with pytest.raises(
        JobError, match=r"differs from the one that --output=.* was started"
    ):
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
        ("out", "1", r"out has 1 bytes, \d+ bytes were written: name another --output"),
        (
            "out.rejected.jsonl",
            "",
            r"rejected.jsonl has 0 bytes, \d+ bytes were written",
        ),
        ("out.job.json", "{", "is damaged"),
        ("out.job.json", "[1]", "is not a JSON object"),
        ("out.job.json", '{"schema": 1}', "is damaged"),
        ("out.job.json", '{"schema": 2}', "has schema 2, this version reads up to 1"),
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


def look(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Returns what a change of any file would change."""
    return {
        path.name: (path.lstat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.iterdir())
    }


@given(
    foreign=st.dictionaries(
        st.sampled_from(NAMES), st.binary(max_size=9) | st.just(b'{"schema": 1}'),
        min_size=1,
    )
)  # fmt: skip
def test_files_of_somebody_else_are_refused_and_not_touched(foreign, tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    for name, content in foreign.items():
        (folder / name).write_bytes(content)
    before = look(folder)
    with pytest.raises(JobError, match="name another --output") as error:
        run(folder / "out", make_rows(4, (2,)))
    assert "\n" not in str(error.value)
    assert look(folder) == before
    # What the message advises leads on.
    advised = str(error.value).partition("name another")[2]
    named = set(re.findall(r"/(out[a-z.]*)", advised)) or foreign
    for name in named:
        (folder / name).rename(folder / f"old_{name}")
    run(folder / "out", make_rows(4, (2,)))
    for name, (_, content) in before.items():
        assert (folder / f"old_{name}").read_bytes() == content


class Crash(BaseException):
    """Ends the process at a system call, as far as the files are concerned."""


def crash_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Lets the call number `count` that changes a file be the last one.

    A write is torn: half of its bytes are in the file.
    """
    calls = itertools.count(1)
    append = JobFile.append

    def append_torn(self, text: str) -> None:
        turn = next(calls)
        append(self, text[: len(text) // 2] if turn == count else text)
        if turn >= count:
            raise Crash

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*arguments, **keywords):
            if next(calls) >= count:
                raise Crash
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, counted)

    for name in ("fsync", "link"):
        wrap(os, name)
    for name in ("replace", "open", "unlink", "chmod"):
        wrap(Path, name)
    monkeypatch.setattr(JobFile, "append", append_torn)
    wrap(JobFile, "cut")
    wrap(job_module, "take_lock")


def crash(output: Path, count: int) -> bool:
    """Runs a job up to a call that changes a file; returns whether there was one."""
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, count)
        try:
            run(output, ROWS)
        except Crash:
            return True
    return False


ROWS = make_rows(8, (2, 5))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, str]:
    """The files of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "out", ROWS)
    return read_files(folder)


def test_a_crash_at_every_call_leaves_what_the_next_run_completes(tmp_path, whole):
    """Each call that changes a file as the last one of its process."""
    for count in itertools.count(1):
        folder = tmp_path / str(count)
        folder.mkdir()
        if not crash(folder / "out", count):
            break
        run(folder / "out", ROWS)
        assert read_files(folder) == whole, count
    assert count > 40


@given(counts=st.lists(st.integers(1, 50), max_size=5))
def test_crashes_in_a_row_leave_what_the_next_run_completes(
    counts, whole, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("crashes")
    for count in counts:
        crash(folder / "out", count)
    run(folder / "out", ROWS)
    assert read_files(folder) == whole


@given(
    count=st.integers(1, 60),
    name=st.sampled_from(NAMES[:2]),
    content=st.binary(min_size=1, max_size=300),
)
def test_a_file_put_where_a_killed_job_goes_on_is_not_touched(
    count, name, content, tmp_path_factory
):
    """Unless the job's record says that the job had made one of that name."""
    folder = tmp_path_factory.mktemp("killed")
    crash(folder / "out", count)
    record = folder / NAMES[2]
    noted = json.loads(record.read_text())["files"] if record.exists() else {}
    if name in noted and not noted[name]["bytes"]:
        return
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    before = look(folder)
    finished = record.exists() and json.loads(record.read_text())["finished"]
    if finished and name not in noted:
        assert run(folder / "out", ROWS).progress.finished
    else:
        with pytest.raises(JobError, match="name another --output"):
            run(folder / "out", ROWS)
    assert {k: v for k, v in look(folder).items() if k in before} == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_regular_file_is_refused(tmp_path, name, kind):
    (tmp_path / "mine").write_text("mine\n")
    if kind == "folder":
        (tmp_path / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("mine" if kind == "link" else "absent")
    wanted = "is a link" if "link" in kind else "is not a regular file"
    with pytest.raises(JobError, match=wanted):
        run(tmp_path / "out", make_rows(3, (2,)))
    assert (tmp_path / "mine").read_text() == "mine\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(("mine", name))


def test_a_link_put_under_a_temporary_name_is_not_written_through(tmp_path):
    run(tmp_path / "first", make_rows(3))
    names: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = Path.replace
        patch.setattr(
            Path, "replace", lambda a, b: (names.append(a.name), real(a, b))[1]
        )
        run(tmp_path / "out", make_rows(3))
    for path in tmp_path.glob("out*"):
        path.unlink()
    (tmp_path / "mine").write_text("mine\n")
    (tmp_path / names[0]).symlink_to("mine")
    run(tmp_path / "out", make_rows(3))
    assert (tmp_path / "mine").read_text() == "mine\n"


def test_a_side_file_is_made_with_the_first_rejected_row(tmp_path):
    seen: list[bool] = []
    job = Job(tmp_path / "out", SETTINGS, 3)
    job.run(
        make_rows(9, (5,)), answer, "", False,
        lambda rows: seen.append(job.paths.rejected.exists()),
    )  # fmt: skip
    job.close()
    assert seen == [False, True, True]


def test_a_changed_byte_of_what_was_written_is_found(tmp_path):
    run(tmp_path / "out", ROWS)
    for name in NAMES[:2]:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"#" + content[1:])
        with pytest.raises(JobError, match=f"{name} was changed after it was written"):
            run(tmp_path / "out", ROWS)
        (tmp_path / name).write_bytes(content)


def test_a_record_of_another_output_is_refused(tmp_path):
    run(tmp_path / "other", ROWS)
    (tmp_path / "out").write_text("mine\n")
    (tmp_path / "out.job.json").write_bytes((tmp_path / "other.job.json").read_bytes())
    with pytest.raises(
        JobError, match="belongs to another output, since it names other"
    ):
        run(tmp_path / "out", ROWS)
    assert (tmp_path / "out").read_text() == "mine\n"


@pytest.mark.parametrize(
    "name", ["a\nb", "-x", " ", "*[a]?", "\udcff", "#%20'", "ä" * 100, "x" * 215]
)
def test_any_name_will_do(tmp_path, name):
    with pytest.raises(JobError, match="line 2 is empty"):
        run(tmp_path / name, make_rows(5, (2,)), chunk_rows=1, strict=True)
    run(tmp_path / name, make_rows(5), chunk_rows=1)
    assert (tmp_path / name).read_text().count("of 1") == 5
    assert len(list(tmp_path.iterdir())) == 2


def test_a_finished_job_needs_no_right_to_write(tmp_path, monkeypatch):
    run(tmp_path / "out", ROWS)

    def refuse(path: str, flags: int) -> int:
        assert flags & os.O_ACCMODE == os.O_RDONLY
        return os.open(path, flags)

    monkeypatch.setattr(job_files, "_open_no_link", refuse)
    monkeypatch.setattr(job_module, "take_lock", None)
    assert run(tmp_path / "out", ROWS).progress.finished


@pytest.mark.parametrize(("name", "size"), [("out", 1100), ("out.job.json", 300)])
def test_a_full_disk_is_a_line_that_names_the_file(tmp_path, name, size):
    """A limit on the size of files, which the system meets in the middle of a write."""
    rows = make_rows(150, (2, 5))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        message = rf"/{name} cannot be written \(File too large\): solve this and run"
        with pytest.raises(JobError, match=message):
            run(tmp_path / "out", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    run(tmp_path / "out", rows)
    (tmp_path / "whole").mkdir()
    run(tmp_path / "whole" / "out", rows)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_an_output_removed_while_it_is_written_is_noticed(tmp_path):
    job = Job(tmp_path / "out", SETTINGS, 3)
    with pytest.raises(JobError, match="was removed or replaced"):
        job.run(ROWS, answer, "", False, lambda rows: (tmp_path / "out").unlink())
    job.close()


def test_the_note_comes_after_the_answers(tmp_path, monkeypatch):
    """At every sync to the disk, what is noted as done is in the files already."""

    def check(descriptor: int) -> None:
        if (tmp_path / "out.job.json").exists():
            files = json.loads((tmp_path / "out.job.json").read_text())["files"]
            for name, written in files.items():
                assert (tmp_path / name).stat().st_size >= written["bytes"]

    monkeypatch.setattr(os, "fsync", check)
    run(tmp_path / "out", make_rows(9))
