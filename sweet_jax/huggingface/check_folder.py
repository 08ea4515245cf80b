"""Reports how the files of an encoder's folder would be loaded."""

from collections.abc import Iterator
from pathlib import Path

from sweet_jax.data.tokenize import check_vocabulary, load_tokenizer
from sweet_jax.data.tokenizer_folder import TOKENIZER_FILES
from sweet_jax.huggingface.config import load_config
from sweet_jax.huggingface.safetensors import load_encoder, take_inventory
from sweet_jax.system import files


def check_folder(folder: Path) -> Iterator[str]:
    """Yields lines about how the whole encoder would be loaded.

    Raises:
        ValueError: the folder cannot be loaded; the message says why.
    """
    config = load_config(folder)
    yield (f"{folder}: {config}")
    inventory = take_inventory(folder, config, config.num_layers)
    pooler = any(path.startswith("pooler/") for path in inventory.wanted)
    yield (
        f"{len(inventory.wanted)} tensors to load, pooler"
        f" {'included' if pooler else 'absent (exits start from fresh poolers)'}"
    )
    if inventory.ignored:
        ignored = files.show_names(inventory.ignored, most=20)
        yield (f"ignored, not part of the encoder: {ignored}")
    inventory.check(folder)
    load_encoder(folder, config, config.num_layers)
    yield ("nothing missing, nothing extra, no weight NaN or infinite")
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = load_tokenizer(folder, config.max_positions)
        check_vocabulary(tokenizer, config.vocab_size)
        yield (f"tokenizer: {type(tokenizer).__name__}, {len(tokenizer)} tokens")
    else:
        yield ("no tokenizer: a run needs one in the same folder")
