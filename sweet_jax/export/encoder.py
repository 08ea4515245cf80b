"""A model folder's encoder as a folder that Hugging Face's PyTorch classes load."""

from pathlib import Path

from sweet_jax.arrays import Params
from sweet_jax.data.tokenize import load_tokenizer
from sweet_jax.huggingface.config import load_config, read_config
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.pickles import check_new_folder
from sweet_jax.huggingface.safetensors import export_encoder
from sweet_jax.models.multi_exit import find_segment
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import ModelFolderError, load_model_folder
from sweet_jax.system.files import show, write_folder
from sweet_jax.trees import flatten_paths, unflatten_paths


def export_model(model: Path, out: Path, exit_number: int | None = None) -> str:
    """Writes the encoder up to an exit, with its tokenizer.

    The exit's final norm is included for families that have one. Its pooler is included
    if it is the same as Hugging Face's, a dense layer on the first token's state. Its
    classifier is not, since it is not part of an encoder.

    Args:
        model: a model folder (`WORKDIR/model`), or the work directory.
        out: the folder to write.
        exit_number: the encoder ends at this exit; for multi_model, it is the encoder
            of this exit. None: the last exit.

    Returns:
        One line that describes the written folder.

    Raises:
        ValueError: `model` is not a model folder, there is no such exit, `out` contains
            files, or each segment has trained its own copy of shared tables.
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
    # Hugging Face's pooler reads the first token's state, in families that have one.
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


def take_parts(
    description: ModelDescription, params: Params, number: int
) -> tuple[Params, Params]:
    """Returns the parameters of the encoder up to an exit, and of the exit."""
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
        # Layers after the exit are not needed.
        and find_segment(path, layers) <= segment
    }
    exits = params["exits"]
    own = dict(exits[f"exit_{number}"])
    if description.shared_pooler:
        own["pooler"] = exits["pooler"]
    return unflatten_paths(encoder), own
