"""The command `analyze`: two analyses, each with its own flags."""

import pytest
from command_line import run_command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name an analysis: conflict or papa"),
        (["pappa"], "did you mean papa?"),
        (["papa"], "--config is missing"),
        (["papa", "--config=sweet"], "no section papa: use --config=papa"),
        (["papa", "--config=papa", "--run=x"], "--run belongs to `analyze conflict`"),
        (["conflict"], "--run is missing"),
        (["conflict", "--run=x", "--config=papa"], "belong to `analyze papa`"),
        (["conflict", "--run=x", "--workdir=y"], "belong to `analyze papa`"),
        (["conflict", "--run=absent"], "absent is not a work directory"),
        (["papa", "--config=papa", "--config.papa.length=7"], "at least 8"),
        (
            ["papa", "--config=papa", "--config.papa.constants_of=absent"],
            "absent/constants.npz is missing: papa.constants_of names",
        ),
    ],
)
def test_wrong_flags_are_one_line(flags, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run_command("analyze", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_training_does_not_take_the_config_of_an_analysis(capsys):
    assert run_command("train", "--config=papa") == 2
    assert "use `sweet-jax analyze papa`" in capsys.readouterr().err
