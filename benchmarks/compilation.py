"""Compilation of a short main job, without and with the persistent cache; padding."""

import os
import subprocess
import sys
import tempfile

from measuring import print_header, print_row

from sweet_jax.runs.inputs import prepare
from sweet_jax.runs.results import compute_train_padding
from sweet_jax.settings.from_config import from_config_dict

_CODE = """
import pathlib, sys
from sweet_jax.runs import pipeline
from sweet_jax.settings.from_config import from_config_dict
settings = from_config_dict(
    {"data": {"max_train_examples": 64}, "train": {"num_epochs": 1}}
)
_, results = pipeline.run(settings, pathlib.Path(sys.argv[1]), quiet=True)
print(sum(results["programs"].values()), results["seconds"]["compile"])
"""


def measure_compilation() -> None:
    """Prints the number of programs and the compile time, in separate processes."""
    print_header("main job on 64 rows, 1 epoch", "programs", "compile s")
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("cold", "persistent cache"):
            done = subprocess.run(
                [sys.executable, "-c", _CODE, f"{scratch}/{name.split()[0]}"],
                env=os.environ | {"SWEET_JAX_CACHE": f"{scratch}/cache"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            print_row(name, *done.stdout.split()[-2:])
    padding = compute_train_padding(prepare(from_config_dict({})))
    print(f"\npadded over real tokens, training at 2,000 rows: {padding:.3f}")
