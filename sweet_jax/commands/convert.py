"""Conversions by hand: `python -m sweet_jax convert`.

    --check FOLDER            what would be loaded, ignored, missing; nothing is written
    --from-torch FOLDER OUT   pickled PyTorch weights to safetensors (needs torch)
    --export MODEL OUT        a trained encoder as a folder that PyTorch loads

Wrong input ends with one line and exit status 2.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweet_jax.data.tokenize import check_vocabulary, load_tokenizer
from sweet_jax.data.tokenizer_folder import TOKENIZER_FILES
from sweet_jax.export.encoder import check_new_folder, export_model
from sweet_jax.huggingface.config import load_config
from sweet_jax.huggingface.safetensors import (
    SINGLE_FILE,
    load_encoder,
    read_shard_names,
    take_inventory,
)
from sweet_jax.system import files, process, stopping

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
    process.say(f"{folder}: {config}")
    inventory = take_inventory(folder, config, config.num_layers)
    pooler = any(path.startswith("pooler/") for path in inventory.wanted)
    process.say(
        f"{len(inventory.wanted)} tensors to load, pooler"
        f" {'included' if pooler else 'absent (exits start from fresh poolers)'}"
    )
    if inventory.ignored:
        ignored = files.show_names(inventory.ignored, most=20)
        process.say(f"ignored, no part of the encoder: {ignored}")
    inventory.check(folder)
    load_encoder(folder, config, config.num_layers)
    process.say("nothing missing, nothing extra, no weight NaN or infinite")
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = load_tokenizer(folder, config.max_positions)
        check_vocabulary(tokenizer, config.vocab_size)
        process.say(f"tokenizer: {type(tokenizer).__name__}, {len(tokenizer)} tokens")
    else:
        process.say("no tokenizer: a run needs one in the same folder")


def convert_from_torch(folder: Path, out: Path) -> None:
    """Writes a folder's pickled weights as safetensors, names and types unchanged.

    torch.load runs with weights_only=True: a pickle that asks for anything but tensors
    is refused. Config and tokenizer files are copied.

    Raises:
        ValueError: torch is not installed; no pickled weights; a file that torch will
            not load; `out` holds files already.
    """
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        raise ValueError(
            "--from-torch needs PyTorch: pip install 'sweet_jax[torch]'"
        ) from error
    in_place = out.exists() and out.samefile(folder)
    if not in_place:
        check_new_folder(out)
    elif (out / SINGLE_FILE).exists():
        raise ValueError(f"{out} has a {SINGLE_FILE} already: name another folder")
    tensors: dict[str, Any] = {}
    for file in _find_pickles(folder):
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # The file may be anything.
            reason = files.show(str(error).strip().split("\n")[0][:300])
            raise ValueError(f"{file} cannot be loaded safely: {reason}") from error
        if not isinstance(loaded, dict) or not all(
            isinstance(name, str)
            and isinstance(value, torch.Tensor)
            and value.layout is torch.strided
            and not value.is_quantized
            for name, value in loaded.items()
        ):
            raise ValueError(f"{file} is not a dictionary of tensors")
        # Tied tensors share memory, which safetensors refuses: each gets its own.
        tensors.update({k: v.contiguous().clone() for k, v in loaded.items()})
    companions = [
        file
        for pattern in COMPANIONS
        for file in sorted(folder.glob(pattern))
        if not file.name.endswith(".index.json") and not in_place
    ]
    out.mkdir(parents=True, exist_ok=True)
    for file in companions:
        files.write_bytes(out / file.name, files.read_bytes(file))
    # Last: a folder with weights is a whole folder.
    with files.write_whole(out / SINGLE_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    process.say(f"{out / SINGLE_FILE}: {len(tensors)} tensors")


def _find_pickles(folder: Path) -> list[Path]:
    if (folder / PICKLE_FILE).is_file():
        return [folder / PICKLE_FILE]
    index = folder / PICKLE_INDEX
    if not index.is_file():
        raise ValueError(f"{folder} has no {PICKLE_FILE} and no {PICKLE_INDEX}")
    shards = [folder / name for name in read_shard_names(index)]
    if gone := [file.name for file in shards if not file.is_file()]:
        raise ValueError(f"{folder} lacks the shards {files.show_names(gone)}")
    return shards


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status, 2 for a user's error."""
    return process.guard(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = process.Parser(prog="python -m sweet_jax convert")
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
        done = export_model(model, out, options.exit)
        stopping.finish(0)  # The same command would refuse to write again.
        process.say(done)
    else:
        convert_from_torch(*options.from_torch)


if __name__ == "__main__":
    process.run(main)
