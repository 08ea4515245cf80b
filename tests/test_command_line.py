"""The command line: every wrong input is one line on stderr and exit status 2."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweet_jax import command_line
from sweet_jax.settings import METHODS, from_config_dict

# Imports once, then runs each command line in a forked child: absl's flags are global
# and ml_collections adds to them while it parses: one process takes one command line.
_DRIVER = """
import json, os, runpy, sys
import sweet_jax.dry_run
cases = json.load(sys.stdin)
for arguments, path in cases:
    if os.fork() == 0:
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), 2)
        sys.argv = ["main", *arguments]
        runpy.run_module("sweet_jax.main", run_name="__main__")
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


SWEET = "--config=configs/sweet.py"


CASES: list[tuple[list[str], str]] = [
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
]


def test_wrong_input_is_one_line_and_status_2(tmp_path):
    workdir = tmp_path / "run"
    commands = [
        ([*arguments, "--dry_run", f"--workdir={workdir}"], str(tmp_path / f"{i}.txt"))
        for i, (arguments, _) in enumerate(CASES)
    ]
    # Only an error ends a child early, so a dry run that succeeds shows as status 0.
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER],
        input=json.dumps(commands),
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    statuses = done.stdout.split()
    assert len(statuses) == len(CASES)
    for (arguments, message), (_, path), status in zip(
        CASES, commands, statuses, strict=True
    ):
        last = Path(path).read_text().strip().splitlines()[-1]
        assert status == "2", (arguments, last)
        assert last.startswith("error: "), (arguments, last)
        assert message in last, (arguments, last)
    assert not workdir.exists(), "something was written before the error"


def test_only_our_own_errors_are_the_users(tmp_path):
    with pytest.raises(ValueError, match="batch_size") as ours:
        from_config_dict({"train": {"batch_size": 0}})
    with pytest.raises(json.JSONDecodeError) as a_librarys:
        json.loads("{")
    assert command_line._is_raised_here(ours.value)
    assert not command_line._is_raised_here(a_librarys.value)


@pytest.mark.parametrize("name", ["sweet", "early_exit", "multi_model", "paper"])
def test_every_config_file_makes_settings(name):
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
