"""A model folder's encoder as a folder that Hugging Face's PyTorch classes load."""

from pathlib import Path

from sweet_jax.arrays import Params
from sweet_jax.data.tokenize import load_tokenizer
from sweet_jax.huggingface.config import load_config, read_config
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.safetensors import export_encoder
from sweet_jax.models.multi_exit import find_segment
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import ModelFolderError, load_model_folder
from sweet_jax.system.files import show, show_names, write_folder
from sweet_jax.trees import flatten_paths, unflatten_paths


def export_model(model: Path, out: Path, exit_number: int | None = None) -> str:
    """Writes the encoder that an exit reads, with its tokenizer.

    The exit's final norm comes along in families that have one, and its pooler where
    it is what Hugging Face's is: a map of the first token's state. Its classifier stays
    behind, as no encoder has one.

    Args:
        model: a model folder (`WORKDIR/model`), or the work directory.
        out: the folder to write.
        exit_number: the encoder ends at this exit, and of a multi_model it is this
            exit's own; None: the last exit.

    Returns:
        One line on what was written.

    Raises:
        ValueError: no model folder; no such exit; `out` holds files already; the
            segments have trained shared tables of their own.
    """
    folder = model / "model" if (model / "model").is_dir() else model
    description, params = load_model_folder(folder)
    layers = description.exit_layers
    number = len(layers) - 1 if exit_number is None else exit_number
    if not 0 <= number < len(layers):
        raise ModelFolderError(
            f"{folder} has no exit {number}: its exits are 0 to {len(layers) - 1}"
        )
    check_new_folder(out)
    config = load_config(folder / "encoder", description.ignore_attributes)
    tokenizer = load_tokenizer(folder / "tokenizer", config.max_positions)
    encoder, exit_params = take_parts(description, params, number)
    # Theirs is a map of the first token's state, in families that have one.
    has_pooler = description.pooling == "cls" and NAME_MAPS[config.family].has_pooler
    with write_folder(out) as temporary:
        export_encoder(
            encoder,
            exit_params["pooler"] if has_pooler else None,
            config,
            read_config(folder / "encoder"),
            temporary,
            exit_params.get("norm"),
        )
        tokenizer.save_pretrained(str(temporary))
    return (
        f"{out}: {config.family}, {layers[number] + 1} layers,"
        f" {'with the pooler of' if has_pooler else 'without a pooler, up to'}"
        f" exit {number} of {show(description.method)} on {show(description.task)}"
    )


def check_new_folder(out: Path) -> None:
    """Checks that nothing lies where a folder will be written: nothing is replaced.

    Raises:
        ValueError: it is a file, or holds some.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder")
    if out.is_dir() and (there := sorted(file.name for file in out.iterdir())):
        raise ValueError(
            f"{out} has a {show_names(there)} already: name an empty folder, or"
            " one that does not exist"
        )


def take_parts(
    description: ModelDescription, params: Params, number: int
) -> tuple[Params, Params]:
    """Returns the encoder up to an exit, and the exit's own parameters."""
    members = description.member_exits
    if len(members) > 1:
        owner = next(i for i, exits in enumerate(members) if number in exits)
        params, segment = params[f"member_{owner}"], members[owner].index(number)
        layers = tuple(description.exit_layers[i] for i in members[owner])
    else:
        segment, layers = number, description.exit_layers
    flat = flatten_paths(params)
    encoder = {
        path.removeprefix("encoder/"): leaf
        for path, leaf in flat.items()
        if path.startswith("encoder/")
        # What lies behind the exit is no part of what it reads.
        and find_segment(path, layers) <= segment
    }
    exits = params["exits"]
    own = dict(exits[f"exit_{number}"])
    if description.shared_pooler:
        own["pooler"] = exits["pooler"]
    return unflatten_paths(encoder), own
