"""Convert encoders from and to PyTorch, and check encoder folders.

    sweet-jax convert --check FOLDER
    sweet-jax convert --from_torch FOLDER OUT
    sweet-jax convert --export RUN/model OUT

No code of a folder is run; pickled weights are read with PyTorch's weights_only=True.
Exit status: 0 done, 2 a wrong input.
"""

import argparse
from pathlib import Path

from sweet_jax.commands.flags import Parser
from sweet_jax.system import process, stopping


def add_flags(parser: Parser) -> None:
    """Adds the flags of the command."""
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--check",
        type=Path,
        metavar="FOLDER",
        help="show what would be loaded or ignored and what is missing; write nothing",
    )
    action.add_argument(
        "--from_torch",
        type=Path,
        nargs=2,
        metavar=("FOLDER", "OUT"),
        help="convert pickled PyTorch weights to safetensors (needs torch)",
    )
    action.add_argument(
        "--export",
        type=Path,
        nargs=2,
        metavar=("MODEL", "OUT"),
        help="write a trained encoder as a folder that PyTorch loads",
    )
    parser.add_argument(
        "--exit", type=int, help="export up to this exit (default: the last)"
    )


def run(options: argparse.Namespace) -> None:
    """Checks, converts or exports."""
    if options.exit is not None and options.export is None:
        raise ValueError("--exit belongs to --export: leave it out")

    # Imported here: a wrong flag is reported before jax loads.
    from sweet_jax.export.encoder import export_model
    from sweet_jax.huggingface.check_folder import check_folder
    from sweet_jax.huggingface.pickles import convert_from_torch

    if options.check is not None:
        for line in check_folder(options.check):
            process.say(line)
        return
    if options.export is not None:
        model, out = options.export
        done = export_model(model, out, options.exit)
    else:
        done = convert_from_torch(*options.from_torch)
    stopping.finish(0)  # Not "run it again": a second run would refuse to overwrite.
    process.say(done)
