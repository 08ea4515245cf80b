"""Write a trained model as a folder that runs without this package.

    sweet-jax export --model=RUN/model --out=FOLDER
    sweet-jax export --model=RUN/model --out=FOLDER --pytorch
    sweet-jax export --model=RUN/model --out=FOLDER --onnx --int8

The folder has a program for each segment, the weights, the tokenizer and a loader that
needs only jax (docs/export.md). With --onnx it has ONNX segments instead, for `predict`
and `sweet_jax.load`, and a loader that needs only onnxruntime, numpy and tokenizers
(docs/onnx.md). Exit status: 0 written, 2 a wrong input.
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
    parser.add_switch("onnx", "write ONNX segments, calibrated on the rows of the run")
    parser.add_switch("int8", "with --onnx: products in 8 bits")


def run(options: argparse.Namespace) -> None:
    """Writes the folder."""
    if options.int8 and not options.onnx:
        raise ValueError("--int8 is for ONNX segments: add --onnx")
    if options.pytorch and options.onnx:
        raise ValueError("--pytorch and --onnx write different folders: give one")
    # Imported here: a wrong flag is reported before jax loads.
    from sweet_jax.devices import check_devices

    check_devices()
    if options.onnx:
        from sweet_jax.runs.onnx_export import export_onnx

        precision = "int8" if options.int8 else "float32"
        done = export_onnx(options.model, options.out, precision)
    else:
        from sweet_jax.export.folder import export_folder

        done = export_folder(options.model, options.out, options.pytorch)
    stopping.finish(0)  # Not "run it again": a second run would refuse to overwrite.
    process.say(done)
