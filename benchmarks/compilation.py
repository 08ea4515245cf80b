"""Start-up: compiling a short main job, importing, the first answer; padding."""

import os
import subprocess
import sys
import tempfile

from measuring import print_header, print_row

from sweet_jax.runs.inputs import prepare
from sweet_jax.runs.results import compute_train_padding
from sweet_jax.settings.from_config import from_config_dict

_TRAIN = """
import pathlib, sys
from sweet_jax.runs import pipeline
from sweet_jax.settings.from_config import from_config_dict
settings = from_config_dict(
    {"data": {"max_train_examples": 64}, "train": {"num_epochs": 1}}
)
_, results = pipeline.run(settings, pathlib.Path(sys.argv[1]), quiet=True)
programs = results["programs"]
numbers = (programs["train"], programs["evaluate"], results["seconds"]["compile"])
"""
_ANSWER = """
import sys, time
start = time.perf_counter()
import sweet_jax
load = sweet_jax.load
imported = time.perf_counter() - start
load(sys.argv[1] + "/model").predict(["a quiet, moving film"])
numbers = (f"{imported:.2f}", f"{time.perf_counter() - start:.2f}")
"""
# Seconds on the processor, too: they depend less on what else runs.
_PRINT = """
import os
used = os.times()
print(*numbers, f"{used.user + used.system:.2f}")
"""


def measure_compilation() -> None:
    """Prints programs and seconds, of separate processes."""
    with tempfile.TemporaryDirectory() as scratch:
        print_header(
            "main job on 64 rows, 1 epoch",
            "programs of steps",
            "of evaluation",
            "compile s",
            "CPU s in all",
        )
        for name in ("cold", "persistent cache"):
            workdir = f"{scratch}/{name.split()[0]}"
            print_row(name, *_run(_TRAIN, workdir, f"{scratch}/cache"))
        print()
        print_header("sweet_jax.load", "import s", "first answer s", "CPU s in all")
        for name in ("cold", "persistent cache"):
            print_row(name, *_run(_ANSWER, f"{scratch}/cold", f"{scratch}/answers"))
    padding = compute_train_padding(prepare(from_config_dict({})))
    print(f"\npadded over real tokens, training at 2,000 rows: {padding:.3f}")


def _run(code: str, workdir: str, cache: str) -> list[str]:
    """Returns the numbers of a process with this work directory and cache."""
    done = subprocess.run(
        [sys.executable, "-c", code + _PRINT, workdir],
        env=os.environ | {"SWEET_JAX_CACHE": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1].split()
