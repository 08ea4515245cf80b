"""Write a trained model as a folder that runs without this package.

    sweet-jax export --model=RUN/model --out=FOLDER
    sweet-jax export --model=RUN/model --out=FOLDER --pytorch

The folder has a program for each segment, the weights, the tokenizer and a loader that
needs only jax (docs/export.md). Exit status: 0 written, 2 a wrong input.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser
from sweet_jax.system import process, stopping


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(
        "--model", type=Path, required=True, help="WORKDIR/model of a run"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_switch("pytorch", "also write a PyTorch model")


def run(options: argparse.Namespace) -> None:
    """Writes the folder."""
    # Imported here: a wrong flag is reported before jax loads.
    from sweet_jax.devices import check_devices
    from sweet_jax.export.folder import export_folder

    check_devices()
    done = export_folder(options.model, options.out, options.pytorch)
    stopping.finish(0)  # Not "run it again": a second run would refuse to overwrite.
    process.say(done)
