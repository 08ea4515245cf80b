"""The command line: every wrong input is one line on stderr and exit status 2."""

import json
import sys

import pytest
from absl import flags

from sweet_jax import command_line, main


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Returns (exit status, stderr) of the main command with some arguments."""

    def run(*arguments: str) -> tuple[int, str]:
        flags.FLAGS.unparse_flags()
        for name in ("config", "workdir", "dry_run"):
            flags.FLAGS[name].unparse()
        monkeypatch.setattr(sys, "argv", ["main", *arguments])
        with pytest.raises(SystemExit) as stopped:
            command_line.run_command(main.main)
        return int(stopped.value.code or 0), capsys.readouterr().err

    return run


SWEET = "--config=configs/sweet.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        (["--config=configs/absent.py"], "configs/absent.py"),
        ([SWEET, "--config.optim.learning_rate=1"], "learning_rate"),
        ([SWEET, "--config.train.batch_size=many"], "batch_size"),
        ([SWEET, "--config.train.batch_size=0"], "train.batch_size=0: allowed is"),
        ([SWEET + ":method=sweat"], "did you mean sweet"),
        ([SWEET + ":tsk=sst2"], "allowed are key=value with the keys task"),
        ([SWEET, "--config.exits.layers=(3, 1)"], "are not rising"),
        ([SWEET, "--config.exits.layers=(0, 9)"], "past the encoder of 6 layers"),
        ([SWEET, "--config.boundary_gradient_scale=1.5"], "0 <= a < 1"),
        ([SWEET + ":task=rotten_tomato"], "rotten_tomatoes"),
        ([SWEET + ":task=stsb"], "regression"),
        ([SWEET + ":encoder=minilm-l7"], "minilm-l6"),
        ([SWEET, "extra"], "unexpected argument 'extra'"),
        ([SWEET, "--no_such_flag"], "no_such_flag"),
        ([SWEET + ":task=file"], "data.train_file"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    run_main, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    workdir = tmp_path / "run"
    status, text = run_main(*arguments, f"--workdir={workdir}")
    last = text.strip().splitlines()[-1]
    assert status == 2
    assert last.startswith("error: ")
    assert message in last
    assert not workdir.exists(), "something was written before the error"


def test_a_bug_of_ours_keeps_its_traceback(run_main, monkeypatch):
    def fail() -> None:
        json.loads("{")  # A library's ValueError about what our code gave it.

    monkeypatch.setattr(main, "main", fail)
    with pytest.raises(json.JSONDecodeError):
        run_main(SWEET)


@pytest.mark.parametrize("name", ["sweet", "early_exit", "multi_model", "paper"])
def test_every_config_file_makes_settings(name):
    import importlib.util

    from sweet_jax.settings import METHODS, from_config_dict

    path = f"configs/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = from_config_dict(module.get_config())
    assert settings.method == (name if name in METHODS else "sweet")
    changed = from_config_dict(module.get_config("method=multi_model,seed=4"))
    assert (changed.method, changed.seed) == ("multi_model", 4)
