"""Conversions by hand: `python -m sweet_jax.convert`.

    --check FOLDER            what would be loaded, ignored, missing; nothing is written
    --from-torch FOLDER OUT   pickled PyTorch weights to safetensors (needs torch)
    --export MODEL OUT        a trained encoder as a folder that PyTorch loads

Wrong input ends with one line and exit status 2.
"""

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweet_jax import process
from sweet_jax.convert.hf_config import load_config
from sweet_jax.convert.safetensors import SINGLE_FILE, take_inventory
from sweet_jax.inference.encoder_export import export_model

PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
# Tokenizer and config files that travel with the weights.
COMPANIONS = ("*.json", "*.txt", "*.model")


def check_folder(folder: Path) -> None:
    """Prints what a load of the whole encoder would do with each tensor.

    Raises:
        ValueError: the folder does not fit; the line says why.
    """
    config = load_config(folder)
    print(f"{folder}: {config}")
    inventory = take_inventory(folder, config, config.num_layers)
    pooler = any(path.startswith("pooler/") for path in inventory.wanted)
    print(
        f"{len(inventory.wanted)} tensors to load, pooler"
        f" {'included' if pooler else 'absent (exits start from fresh poolers)'}"
    )
    if inventory.ignored:
        print(f"ignored, no part of the encoder: {', '.join(inventory.ignored)}")
    inventory.check(folder)
    print("nothing missing, nothing extra")


def convert_from_torch(folder: Path, out: Path) -> None:
    """Writes a folder's pickled weights as safetensors, names and types unchanged.

    torch.load runs with weights_only=True: a pickle that asks for anything but tensors
    is refused. Config and tokenizer files are copied.

    Raises:
        ValueError: torch is not installed; no pickled weights; a file that torch will
            not load; weights in `out` already.
    """
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        raise ValueError(
            "--from-torch needs PyTorch: pip install 'sweet_jax[torch]'"
        ) from error
    if (out / SINGLE_FILE).exists():
        raise ValueError(f"{out} has a {SINGLE_FILE} already: name another folder")
    tensors: dict[str, Any] = {}
    for file in _find_pickles(folder):
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"{file} cannot be loaded safely: {reason}") from error
        if not isinstance(loaded, dict) or not all(
            isinstance(value, torch.Tensor) for value in loaded.values()
        ):
            raise ValueError(f"{file} is not a dictionary of tensors")
        # Tied tensors share memory, which safetensors refuses: each gets its own.
        tensors.update({k: v.contiguous().clone() for k, v in loaded.items()})
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{SINGLE_FILE}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    for pattern in COMPANIONS:
        for file in folder.glob(pattern):
            if not file.name.endswith(".index.json") and out != folder:
                shutil.copy2(file, out / file.name)
    # Last: a folder with weights is a whole folder.
    temporary.replace(out / SINGLE_FILE)
    print(f"{out / SINGLE_FILE}: {len(tensors)} tensors")


def _find_pickles(folder: Path) -> list[Path]:
    if (folder / PICKLE_FILE).is_file():
        return [folder / PICKLE_FILE]
    index = folder / PICKLE_INDEX
    if not index.is_file():
        raise ValueError(f"{folder} has no {PICKLE_FILE} and no {PICKLE_INDEX}")
    names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return [folder / Path(name).name for name in sorted(names)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status, 2 for a user's error."""
    return process.guard(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = process.Parser(prog="python -m sweet_jax.convert")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", type=Path, metavar="FOLDER")
    action.add_argument("--from-torch", type=Path, nargs=2, metavar=("FOLDER", "OUT"))
    action.add_argument("--export", type=Path, nargs=2, metavar=("MODEL", "OUT"))
    parser.add_argument(
        "--exit", type=int, help="export up to this exit (default: the last)"
    )
    options = parser.parse_args(arguments)
    if options.check is not None:
        check_folder(options.check)
    elif options.export is not None:
        model, out = options.export
        process.say(export_model(model, out, options.exit))
    else:
        convert_from_torch(*options.from_torch)


if __name__ == "__main__":
    process.run(main)
