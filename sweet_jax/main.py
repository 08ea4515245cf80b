"""Trains a classifier: `python -m sweet_jax.main` is `sweet-jax train`.

python -m sweet_jax.main --config=configs/sweet.py
"""

import sys

from sweet_jax.__main__ import run_command
from sweet_jax.system import process

if __name__ == "__main__":
    process.run(lambda: run_command("train", "python -m sweet_jax.main", sys.argv[1:]))
