"""Converts pickled PyTorch weights to safetensors, the only format that we load."""

from pathlib import Path
from typing import Any

from sweet_jax.huggingface.weight_files import SINGLE_FILE, find_shards
from sweet_jax.system import files
from sweet_jax.system.errors import describe_reason
from sweet_jax.system.packages import install_extra

PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
# Tokenizer and config files, which are copied with the weights.
COMPANIONS = ("*.json", "*.txt", "*.model")


def convert_from_torch(folder: Path, out: Path) -> str:
    """Writes a folder's pickled weights as safetensors, names and types unchanged.

    torch.load runs with weights_only=True, which refuses a pickle of anything but
    tensors. Config and tokenizer files are copied.

    Returns:
        One line that says what was written.

    Raises:
        ValueError: torch is not installed, there are no pickled weights, torch refuses
            a file, or `out` already has files.
    """
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        raise ValueError(
            f"--from_torch needs PyTorch: {install_extra('torch')}"
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
            raise ValueError(
                f"{file} cannot be loaded safely: {describe_reason(error)}"
            ) from error
        if not isinstance(loaded, dict) or not all(
            isinstance(name, str)
            and isinstance(value, torch.Tensor)
            and value.layout is torch.strided
            and not value.is_quantized
            for name, value in loaded.items()
        ):
            raise ValueError(f"{file} is not a dictionary of tensors")
        # Tied tensors share memory, which safetensors refuses, so each is copied.
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
    # Last, so that a folder with weights is always complete.
    with files.write_whole(out / SINGLE_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    return f"{out / SINGLE_FILE}: {len(tensors)} tensors"


def _find_pickles(folder: Path) -> tuple[Path, ...]:
    if (folder / PICKLE_FILE).is_file():
        return (folder / PICKLE_FILE,)
    index = folder / PICKLE_INDEX
    if not index.is_file():
        raise ValueError(f"{folder} has no {PICKLE_FILE} and no {PICKLE_INDEX}")
    return find_shards(index)


def check_new_folder(out: Path) -> None:
    """Checks that an output folder is new or empty, because no file is overwritten.

    Raises:
        ValueError: it is a file, or has files.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder")
    if out.is_dir() and (there := sorted(file.name for file in out.iterdir())):
        raise ValueError(
            f"{out} has a {files.show_names(there)} already: name an empty folder, or"
            " one that does not exist"
        )
