"""The study command: one study to put together, or a config to run, not both."""

import pytest
from command_line import run_command


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "give the folder of a study, or --config=study"),
        (["runs/x", "--config=study"], "give one or the other"),
        (["--config=study", "--keep=x.zip"], "give one or the other"),
        (["--config=sweet"], "is the config of a single run: use `sweet-jax train`"),
        (["nowhere"], "nowhere does not exist: give the directory of a study"),
    ],
)
def test_a_wrong_command_is_one_line(arguments, error, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command("study", *arguments) == 2
    told = capsys.readouterr().err
    assert error in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_study_says_what_it_would_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ("--config.study.methods=('sweet',)", "--config.study.seeds=(0,1)")
    assert run_command("study", "--config=study", *flags, "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["to", "do"]] * 2
    assert not (tmp_path / "runs").exists()
