"""The convert command: one action, its lines, and nothing written by a check."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_command
from recorded import load_recorded
from safetensors.numpy import load_file, save_file

from sweet_jax.system import process, stopping

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT of two layers."""
    return load_recorded("bert").write_folder(tmp_path)


def test_check_lists_what_a_load_would_do(folder, capsys):
    tensors = load_file(folder / "model.safetensors")
    ids = {"embeddings.position_ids": np.arange(40)[None]}
    save_file({**tensors, **ids}, folder / "model.safetensors")
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert run_command("convert", "--check", str(folder)) == 0
    text = capsys.readouterr().out
    assert "39 tensors to load, pooler included" in text
    assert "ignored, not part of the encoder: embeddings.position_ids" in text
    assert text.endswith("no tokenizer: a run needs one in the same folder\n")
    after = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert after == before
    save_file({QUERY: tensors[QUERY]}, folder / "model.safetensors")
    assert run_command("convert", "--check", str(folder)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_check_reads_the_weights(folder, capsys):
    tensors = load_file(folder / "model.safetensors")
    spoilt = {**tensors, QUERY: np.full_like(tensors[QUERY], np.nan)}
    save_file(spoilt, folder / "model.safetensors")
    assert run_command("convert", "--check", str(folder)) == 2
    assert "1024 of 1024 weights that are NaN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --check --from_torch --export is required"),
        (["--check=a", "--export", "b", "c"], "not allowed with argument --check"),
        (["--export", "run"], "--export: expected 2 arguments: see --help"),
        (["--export", "run", "out", "--exit=last"], "--exit: invalid int value"),
        (["--check=a", "--exit=1"], "--exit belongs to --export: leave it out"),
        (["--from_torch", "a", "b", "--exit=0"], "--exit belongs to --export"),
    ],
)
def test_wrong_flags_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command("convert", *arguments) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "called", "given"),
    [
        (["--export", "run", "out"], "export_model", ("run", "out", None)),
        (["--export", "run", "out", "--exit=0"], "export_model", ("run", "out", 0)),
        (["--from_torch", "a", "b"], "convert_from_torch", ("a", "b")),
    ],
)
def test_what_is_written_is_done_before_it_is_said(
    arguments, called, given, monkeypatch
):
    """A signal that comes meanwhile must not ask for a repetition: it is refused."""
    events = []

    def record(name: str, result: str = "") -> Any:
        def fn(*args: Any) -> str:
            events.append((name, *args))
            return result

        return fn

    monkeypatch.setattr(
        "sweet_jax.export.encoder.export_model", record("export_model", "done")
    )
    monkeypatch.setattr(
        "sweet_jax.huggingface.pickles.convert_from_torch",
        record("convert_from_torch", "done"),
    )
    monkeypatch.setattr(stopping, "finish", record("finish"))
    monkeypatch.setattr(process, "say", record("say"))
    assert run_command("convert", *arguments) == 0
    paths = [Path(x) if isinstance(x, str) else x for x in given]
    assert events == [(called, *paths), ("finish", 0), ("say", "done")]


def test_what_fails_is_not_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stopping, "finish", lambda status: pytest.fail("not done"))
    nowhere = str(tmp_path / "nowhere")
    assert run_command("convert", "--export", nowhere, str(tmp_path / "out")) == 2
    assert "is not a model folder" in capsys.readouterr().err
