"""The command line: every wrong input is one line on stderr and exit status 2."""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from main_command import MainCommand

SWEET = "--config=configs/sweet.py"
ROWS = [{"text": f"row {i}", "label": i % 2} for i in range(40)]

# What a person can get wrong in words, and what the line must say.
WRONG_WORDS: list[tuple[list[str], str]] = [
    ([], "--config is missing"),
    (["--config=configs/absent.py"], "configs/absent.py"),
    ([SWEET, "--config.optim.learning_rate=1"], "learning_rate"),
    ([SWEET, "--config.train.batch_size=many"], "batch_size"),
    ([SWEET, "--config.train.batch_size=0"], "train.batch_size=0: allowed is"),
    ([SWEET + ":method=sweat"], "did you mean sweet"),
    ([SWEET + ":tsk=sst2"], "allowed are key=value with the keys task"),
    ([SWEET, "--config.exits.layers=(3, 1)"], "allowed are rising"),
    ([SWEET, "--config.exits.layers=(1, 1)"], "allowed are rising"),
    ([SWEET, "--config.exits.layers=(-1, 1)"], "allowed for each number is at least 0"),
    ([SWEET, "--config.exits.layers=(0, 9)"], "past the encoder of 6 layers"),
    ([SWEET, "--config.boundary_gradient_scale=1.5"], "0 <= a < 1"),
    (
        [SWEET + ":method=early_exit", "--config.boundary_gradient_scale=0.2"],
        "belongs to method=sweet",
    ),
    ([SWEET + ":task=rotten_tomato"], "rotten_tomatoes"),
    ([SWEET + ":task=stsb"], "regression"),
    ([SWEET + ":encoder=minilm-l7"], "minilm-l6"),
    ([SWEET, "extra"], "unexpected argument 'extra'"),
    ([SWEET, "--no_such_flag"], "no_such_flag"),
    ([SWEET + ":task=file"], "data.train_file"),
    ([SWEET + ":method=\x1b[31m"], "\\x1b[31m"),
    (["--config=no\x1b]0;title\x07"], "no\\x1b]0;title\\x07"),
    ([SWEET, "--config.data.text_columns=a,b,c"], "('a', 'b', 'c')"),
]


def to_jsonl(rows: list[dict[str, Any]]) -> str:
    """Returns the content of a .jsonl file."""
    return "".join(json.dumps(row) + "\n" for row in rows)


# Test files that cannot be used, and what the line must say.
WRONG_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "missing column": (
        "test.jsonl", to_jsonl([{"text": "a", "class": 1}]), "no column 'label'"
    ),
    "unknown label": (
        "test.jsonl", to_jsonl([*ROWS, {"text": "a", "label": 7}]),
        "test.jsonl line 41 has the label '7', which the training rows lack",
    ),
    "empty text": (
        "test.jsonl", to_jsonl([*ROWS[:2], {"text": " ", "label": 1}]),
        "test.jsonl line 3 has an empty text",
    ),
    "empty file": ("test.jsonl", "", "test.jsonl is empty"),
    "not UTF-8": ("test.jsonl", b'{"text": "caf\xe9"}', "line 1 is not UTF-8"),
    "ragged row": (
        "test.csv", "text,label\na,1\nb,c,0\n", "test.csv line 3 has 3 fields"
    ),
    "one class": (
        "train.jsonl", to_jsonl([row | {"label": 1} for row in ROWS]),
        "rows of only one class, '1'",
    ),
}  # fmt: skip


def assert_refused(
    command: MainCommand, arguments: list[str], message: str, workdir: Path
) -> None:
    """One line, status 2, and nothing written."""
    status, last = command.run([*arguments, f"--workdir={workdir}"])
    assert status == 2, (arguments, last)
    assert last.startswith("error: "), (arguments, last)
    assert message in last, (arguments, last)
    assert "Traceback" not in last, (arguments, last)
    assert not workdir.exists(), "something was written before the error"


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG_WORDS, ids=[message for _, message in WRONG_WORDS]
)
def test_wrong_words_are_one_line_and_status_2(command, tmp_path, arguments, message):
    assert_refused(command, arguments, message, tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [("encoder=bert-base-uncased", "cannot be reached"), ("task=sst2", "out of reach")],
)
def test_a_hub_id_without_network_is_refused_within_15_seconds(
    command, tmp_path, words, message
):
    start = time.monotonic()
    assert_refused(command, [f"{SWEET}:{words}"], message, tmp_path / "run")
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_files_are_one_line_and_status_2(command, tiny_encoder, tmp_path, case):
    name, content, message = WRONG_FILES[case]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(to_jsonl(ROWS))
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    files = {"train": "train.jsonl", "test": "test.jsonl", Path(name).stem: name}
    arguments = [f"--config.data.{s}_file={tmp_path / f}" for s, f in files.items()]
    assert_refused(
        command,
        [f"{SWEET}:task=file,encoder={tiny_encoder}", *arguments],
        message,
        tmp_path / "run",
    )


@pytest.mark.parametrize("case", ["no weights", "pickle", "truncated", "vocabulary"])
def test_wrong_encoders_are_one_line_and_status_2(
    command, tiny_encoder, tmp_path, case
):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    weights = folder / "model.safetensors"
    if case == "truncated":
        os.truncate(weights, weights.stat().st_size // 2)
    elif case == "vocabulary":
        config = json.loads((folder / "config.json").read_text())
        config["vocab_size"] = 5
        (folder / "config.json").write_text(json.dumps(config))
    else:
        weights.unlink()
        if case == "pickle":
            (folder / "pytorch_model.bin").write_bytes(b"")
    message = {
        "no weights": "safetensors",
        "pickle": "sweet-jax convert --from_torch",
        "truncated": "model.safetensors",
        "vocabulary": "5 rows",
    }[case]
    assert_refused(command, [f"{SWEET}:encoder={folder}"], message, tmp_path / "run")


def test_a_dry_run_says_what_a_run_would_do_and_warns_of_too_few_rows(
    command, tiny_encoder, tiny_task, tmp_path
):
    running = command.start(
        [
            f"{SWEET}:task=file,encoder={tiny_encoder}",
            f"--config.data.train_file={tiny_task / 'train.jsonl'}",
            f"--config.data.test_file={tiny_task / 'test.jsonl'}",
            "--config.data.max_train_examples=5000",
            "--config.data.calibration_examples=24",
            "--config.data.max_length=16",
            "--config.data.buckets=(16,)",
            "--config.train.batch_size=8",
            "--config.exits.layers=(0, 1)",
            f"--workdir={tmp_path / 'run'}",
            "--dry_run",
        ]
    )
    status, _ = running.finish()
    text = running.output.read_text()
    assert status == 0, text
    assert re.search(r"method += 'sweet'", text), text
    assert "5000 training examples requested, 96 available: all are used" in text
    assert not (tmp_path / "run").exists()
