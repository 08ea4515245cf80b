"""What is wrong in the options of predict is one line, before anything is touched."""

import os
from pathlib import Path

import pytest

from sweet_jax.serving.job_files import JobError
from sweet_jax.serving.predict_options import OptionError, PredictOptions

OUTPUT_FILES = ("out.jsonl", "out.jsonl.rejected.jsonl", "out.jsonl.job.json")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current directory, with an input and a model folder."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/model.json").write_text("{}")
    Path("in.jsonl").write_text('{"text": "a"}\n')
    return tmp_path


def check(source: str = "in.jsonl", output: str | None = "out.jsonl", **options):
    PredictOptions(source, Path(output) if output else None, **options).check(
        Path("model")
    )


def look(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", OUTPUT_FILES)
@pytest.mark.parametrize("way", ["path", "dots", "link", "hard link", "descriptor"])
def test_the_input_is_none_of_the_outputs_files(folder, name, way):
    Path(name).write_text('{"text": "a"}\n')
    source = {"path": name, "dots": f"model/../{name}", "descriptor": "/dev/fd/"}.get(
        way, "other.jsonl"
    )
    if way == "link":
        Path(source).symlink_to(name)
    elif way == "hard link":
        os.link(name, source)
    before = look(folder)
    with Path(name).open() as file, pytest.raises(OptionError) as error:
        check(f"{source}{file.fileno()}" if way == "descriptor" else source,
              input_format="jsonl")  # fmt: skip
    assert "belongs to --output: name another output" in str(error.value)
    assert look(folder) == before


def test_standard_input_is_none_of_the_outputs_files(folder):
    Path("out.jsonl").write_text('{"text": "a"}\n')
    old = os.dup(0)
    try:
        with Path("out.jsonl").open() as file:
            os.dup2(file.fileno(), 0)
        for source in ("-", "/dev/stdin"):
            with pytest.raises(OptionError, match="belongs to --output"):
                check(source, input_format="text")
        os.close(0)
        with pytest.raises(OptionError, match="standard input is closed: give --input"):
            check("-")
    finally:
        os.dup2(old, 0)
        os.close(old)


def test_answers_are_not_printed_to_the_end_of_their_input(folder):
    old = os.dup(1)
    try:
        with Path("in.jsonl").open("a") as file:
            os.dup2(file.fileno(), 1)
        with pytest.raises(OptionError, match="also what the answers are written to"):
            check(output=None)
        check()
        os.close(1)
        with pytest.raises(OptionError, match="standard output is closed: give --out"):
            check(output=None)
        check()
    finally:
        os.dup2(old, 1)
        os.close(old)


@pytest.mark.parametrize("folder_name", ["model", "link", "model/deeper"])
def test_the_model_folder_is_neither_read_nor_written(folder, folder_name):
    Path("model/deeper").mkdir()
    Path("link").symlink_to("model")
    with pytest.raises(OptionError, match="is in the folder of --model"):
        check(output=f"{folder_name}/out.jsonl")
    Path("model/deeper/a.txt").write_text("a\n")
    Path("model/a.txt").write_text("a\n")
    with pytest.raises(OptionError, match="is a file of --model"):
        check(f"{folder_name}/a.txt")


WRONG = {
    "absent": ({"source": "no.txt"}, "--input=no.txt does not exist"),
    "folder": ({"source": "model", "input_format": "csv"}, "is a folder: give a file"),
    "ending": ({"output": "a.parquet"}, "allowed endings are .jsonl, .csv"),
    "no ending": ({"output": "-"}, "without --output answers go to the screen"),
    "no folder": ({"output": "no/a.csv"}, "there is no folder no: make it, or"),
    "format": ({"input_format": "xml"}, "allowed are text, csv"),
    "columns": (
        {"input_format": "text", "text_columns": ("a",)},
        "an input of --format=text has no columns",
    ),
    "columns in Latin-1": ({"text_columns": ("caf\udce9",)}, "is not UTF-8"),
    "an id of text": (
        {"input_format": "text", "id_column": "a"},
        "--id_column=a: an input of --format=text has no columns",
    ),
    "kept columns of text": (
        {"input_format": "text", "keep_columns": ("all",)},
        "--keep_columns=all: an input of --format=text has no columns",
    ),
    "all and others": (
        {"input_format": "csv", "keep_columns": ("all", "a")},
        "--keep_columns=all,a: all means every column",
    ),
    "an id of a benchmark": (
        {"benchmark": True, "output": None, "input_format": "csv", "id_column": "a"},
        "--benchmark writes no answers: leave --id_column=a out",
    ),
    "formulas": ({"csv_formulas": "no"}, "allowed are escape, keep"),
    "formulas of jsonl": ({"csv_formulas": "keep"}, "is for an --output that ends in"),
    "targets": ({"threshold": 0.9, "speedup": 2.0}, "conflicting targets"),
    "choose": ({"choose": "score"}, "is for a speedup or milliseconds: give one"),
    "choose what": (
        {"choose": "best", "speedup": 2.0},
        "allowed are cost, score",
    ),
    "benchmark": (
        {"benchmark": True, "output": None, "speedup": 2.0},
        "--benchmark chooses its own thresholds",
    ),
    "benchmark's output": ({"benchmark": True}, "leave --output out"),
    "control characters": ({"source": "\x1b[2J.txt"}, r"--input=\\x1b\[2J.txt does"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_that_says_what_is_allowed(folder, case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as error:
        check(**options)
    assert "\n" not in str(error.value)


def test_files_of_somebody_else_are_found_before_the_model_is_loaded(folder):
    Path("out.jsonl").write_text("")
    with pytest.raises(JobError, match="exists and is not of this command"):
        check()
    check(output="other.csv", csv_formulas="keep")
