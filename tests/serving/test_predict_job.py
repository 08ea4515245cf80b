"""Answers to a file: whose they are, what is refused, what a job keeps to."""

import csv
import dataclasses
import errno
import json
from pathlib import Path

import pytest

import sweet_jax
from benchmarks.tiny_model import write_lines
from sweet_jax.serving import predict_job
from sweet_jax.serving.job_files import JobError
from sweet_jax.serving.predict_job import Stopped, benchmark_file, predict_file
from sweet_jax.serving.predict_options import PredictOptions

CHUNK = 32


@pytest.fixture(scope="module")
def classifier(tiny_model):
    return sweet_jax.load(tiny_model, batch_size=8)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    """Five chunks of lines, two of which are empty."""
    path = write_lines(tmp_path_factory.mktemp("reviews") / "reviews.txt", 4 * CHUNK)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n\nthe last one")
    return path


def read_answers(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def predict(classifier, source: Path, output: Path, **options) -> str:
    return predict_file(
        classifier,
        PredictOptions(str(source), output, threshold=0.8, chunk_rows=CHUNK, **options),
    )


def test_answers_are_those_of_the_classifier_at_their_lines(
    classifier, reviews, tmp_path
):
    said = predict(classifier, reviews, tmp_path / "out.jsonl")
    assert f"129 rows answered in {tmp_path / 'out.jsonl'}" in said
    assert "2 rows could not be used" in said
    lines = reviews.read_text().split("\n")
    rows = read_answers(tmp_path / "out.jsonl")
    assert [row["line"] for row in rows] == [*range(1, 4 * CHUNK + 1), 131]
    expected = classifier.predict([lines[row["line"] - 1] for row in rows], 0.8)
    for row, answer in zip(rows, expected, strict=True):
        assert (row["label"], row["exit"]) == (answer.label, answer.exit)
        assert row["layers"] == answer.layers
        assert list(row["probabilities"]) == ["negative", "positive"]
        probabilities = tuple(row["probabilities"].values())
        assert probabilities == pytest.approx(answer.probabilities, abs=2e-6)
        assert row["probability"] == max(probabilities)
    assert {row["exit"] for row in rows} == {0, 1}
    rejected = (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in rejected] == [
        {"line": line, "problem": "is empty"} for line in (129, 130)
    ]
    predict(classifier, reviews, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    wanted = [
        {k: str(v) for k, v in row.items() if k != "probabilities"}
        | {f"p_{name}": str(p) for name, p in row["probabilities"].items()}
        for row in rows
    ]
    assert table == wanted


WRONG_OPTIONS = {
    "no input": ({"source": "absent.txt"}, "--input=absent.txt does not exist"),
    "format": ({"input_format": "xml"}, "--format=xml: allowed are text, csv, tsv"),
    "ending": ({"output": Path("out.txt")}, "allowed endings are .jsonl, .csv"),
    "folder": ({"output": Path("no/out.csv")}, "there is no folder no"),
    "taken": ({"output": Path("taken.csv")}, "exists and is not of this command"),
    "targets": (
        {"threshold": 0.8, "speedup": 2.0},
        "threshold=0.8 and speedup=2.0 are conflicting targets",
    ),
    "threshold": ({"threshold": 2.0}, "threshold=2 is outside"),
    "milliseconds": (
        {"milliseconds": float("nan")},
        "milliseconds=nan: allowed is a number above 0",
    ),
    "speedup": (
        {"speedup": 9.0},
        "speedup=9 is out of reach: .* ask for at most that",
    ),
    "choose": ({"choose": "score"}, "choose=score is for a speedup or milliseconds"),
    "criterion": ({"criterion": "sure"}, "criterion='sure': allowed are confidence"),
    "columns": ({"source": "in.csv", "text_columns": ("b",)}, "no column 'b'"),
    "empty": ({"source": "empty.txt"}, "the input is empty"),
    "pairs": ({"source": "pairs.csv"}, "this model takes single texts"),
    "strict": ({"source": "bad.txt", "strict": True}, "line 2 is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criterion": "margin"}, "criterion was 'confidence', now 'margin'"),
        ({"threshold": 0.7}, "thresholds was "),
        ({"text_columns": ("title",)}, r"text_columns was .*, now \['title'\]"),
        ({}, "model was .*, now 'another'"),
    ],
)
def test_answers_to_another_question_are_not_gone_on_with(
    classifier, tmp_path, monkeypatch, changes, message
):
    source, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("text,title\ngood film,a\n")
    options = {"threshold": 0.8, "text_columns": ("text",)}
    predict_file(classifier, PredictOptions(str(source), output, **options))
    before = output.read_bytes()
    if not changes:
        monkeypatch.setattr(predict_job, "compute_folder_digest", lambda _: "another")
    with pytest.raises(JobError, match=message):
        predict_file(
            classifier, PredictOptions(str(source), output, **(options | changes))
        )
    assert output.read_bytes() == before


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_what_is_wrong_is_one_line(classifier, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\ngood film\n")
    Path("pairs.csv").write_text("premise,hypothesis\na,b\n")
    Path("taken.csv").write_text("mine\n")
    Path("empty.txt").write_text("")
    Path("bad.txt").write_bytes(b"good\ncaf\xe9\n")
    changes, message = WRONG_OPTIONS[case]
    options = {"source": "in.csv", "output": Path("out.jsonl"), **changes}
    with pytest.raises(ValueError, match=message) as error:
        predict_file(classifier, PredictOptions(**options))
    assert "\n" not in str(error.value)
    assert Path("taken.csv").read_text() == "mine\n"
    # Nothing is left behind that the right command would stumble over.
    options = {"source": "in.csv", "output": Path("out.jsonl")}
    if case != "strict":
        predict_file(classifier, PredictOptions(**options))


def test_an_id_and_the_whole_row_stand_beside_each_answer(classifier, tmp_path):
    rows = [{"id": f"0{i}", "text": "a film" * (i % 3), "label": "x"} for i in range(9)]
    source = tmp_path / "in.csv"
    with source.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    passed = {"id_column": "id", "keep_columns": ("all",)}
    predict(classifier, source, tmp_path / "out.csv", **passed)
    predict(classifier, source, tmp_path / "out.jsonl", **passed)
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    answers = read_answers(tmp_path / "out.jsonl")
    # Of the input's rows in their order, but for those without a text.
    assert [row["columns"] for row in answers] == [r for r in rows if r["text"]]
    for row, answer in zip(table, answers, strict=True):
        assert row["id"] == answer["id"] == row["input_id"]
        assert (row["text"], row["input_label"]) == (answer["columns"]["text"], "x")
        assert row["label"] == answer["label"]
        for name, probability in answer["probabilities"].items():
            assert row[f"p_{name}"] == str(probability)
    # Another choice of columns is another job.
    with pytest.raises(JobError, match=r"id_column was 'id', now 'text'"):
        predict(classifier, source, tmp_path / "out.csv", id_column="text")


def test_columns_of_a_csv_follow_from_a_first_row_that_can_be_read(
    classifier, tmp_path
):
    source = tmp_path / "in.jsonl"
    lines = [
        '{"text": "a film", "n": 1}',
        '{"text": "a plot"}',
        '{"text": "b", "x": 1}',
    ]
    output = tmp_path / "out.csv"
    source.write_text("\n".join(["no JSON", *lines]))
    with pytest.raises(JobError, match="the first row cannot be read, so the columns"):
        predict(classifier, source, output, keep_columns=("all",))
    source.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="line 3 has the column 'x', which the first"):
        predict(classifier, source, output, keep_columns=("all",))
    # The advice leads out.
    output = tmp_path / "named.csv"
    predict(classifier, source, output, keep_columns=("n",))
    with output.open(newline="") as file:
        assert [row["n"] for row in csv.DictReader(file)] == ["1", "", ""]
    predict(classifier, source, tmp_path / "out.jsonl", keep_columns=("all",))
    kept = [row["columns"] for row in read_answers(tmp_path / "out.jsonl")]
    assert kept == [json.loads(line) for line in lines]


def test_measured_thresholds_are_kept_for_the_job(
    classifier, reviews, tmp_path, monkeypatch
):
    """A second measurement differs, and may not keep a job from going on."""
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_bytes(b"good film\n" * 40 + b"caf\xe9\n")
    measured = iter([(0.7,), (0.6,)])
    monkeypatch.setattr(classifier, "choose_thresholds", lambda *_: next(measured))
    options = PredictOptions(
        str(source), output, milliseconds=3.0, chunk_rows=10, strict=True
    )
    with pytest.raises(JobError, match="line 41 is not UTF-8"):
        predict_file(classifier, options)
    assert "40 rows answered" in predict_file(
        classifier, dataclasses.replace(options, strict=False)
    )
    assert json.loads(output.with_name("out.jsonl.job.json").read_text())["settings"][
        "thresholds"
    ] == [0.7]
    with pytest.raises(JobError, match=r"milliseconds was 3\.0, now 4\.0"):
        predict_file(classifier, dataclasses.replace(options, milliseconds=4.0))
    measured = iter([(0.7,)])
    with pytest.raises(JobError, match="choose was 'cost', now 'score'"):
        predict_file(classifier, dataclasses.replace(options, choose="score"))


def test_an_input_none_of_whose_rows_can_be_used_says_what_to_look_at(
    classifier, tmp_path
):
    source = tmp_path / "in.csv"
    source.write_text("text\na film\n")
    options = PredictOptions(
        str(source), tmp_path / "out.jsonl", "jsonl", text_columns=("text",)
    )
    said = predict_file(classifier, options)
    assert "0 rows answered" in said
    assert (
        "no row could be used: read the problems above, and check that --format" in said
    )


def test_strict_stops_at_a_row_on_the_screen_too(classifier, tmp_path, capsys):
    source = tmp_path / "in.txt"
    source.write_bytes(b"good\ncaf\xe9\n")
    with pytest.raises(JobError, match="line 2 is not UTF-8"):
        predict_file(classifier, PredictOptions(str(source), None, strict=True))
    said = predict_file(classifier, PredictOptions(str(source), None))
    assert "1 rows could not be used" in said
    assert json.loads(capsys.readouterr().out)["line"] == 1


def test_a_benchmark_is_of_the_rows_that_can_be_used(classifier, reviews, monkeypatch):
    timed = []

    def measure(_, examples):
        timed.extend(examples.texts)
        return iter(())

    monkeypatch.setattr(predict_job, "measure_speedups", measure)
    options = PredictOptions(str(reviews), None)
    first, *_ = benchmark_file(classifier, options)
    assert timed == [line for line in reviews.read_text().split("\n") if line]
    assert first == f"129 rows, {classifier!r}"
    monkeypatch.setattr(predict_job, "_BENCHMARK_ROWS", 3)
    timed.clear()
    assert next(benchmark_file(classifier, options)).startswith("3 rows, ")
    assert len(timed) == 0, "nothing is timed before the first line is shown"


def test_a_benchmark_without_rows_is_one_line(classifier, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("\n\n")
    with pytest.raises(JobError, match=r"in\.txt has no row that can be used") as error:
        list(benchmark_file(classifier, PredictOptions(str(source), None)))
    assert "\n" not in str(error.value)


def test_a_job_that_is_stopped_says_how_far_it_came(classifier, reviews, tmp_path):
    """And the same call goes on from there."""
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    predict(classifier, reviews, whole)
    with pytest.MonkeyPatch.context() as patch:
        answer, calls = predict_job.answer_rows, iter(range(3))

        def stop(*args):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return answer(*args)

        patch.setattr(predict_job, "answer_rows", stop)
        with pytest.raises(Stopped, match=f"stopped after {2 * CHUNK} rows: the same"):
            predict(classifier, reviews, parts)
    assert "129 rows answered" in predict(classifier, reviews, parts)
    assert parts.read_bytes() == whole.read_bytes()
    said = predict(classifier, reviews, parts)
    assert said == f"{parts} is finished: nothing to do"


def test_an_input_that_cannot_be_read_is_named(classifier, reviews, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(predict_job, "read_inputs", fail)
    with pytest.raises(OSError, match="Input/output error") as error:
        predict_file(classifier, PredictOptions(str(reviews), None))
    assert error.value.filename == str(reviews)
