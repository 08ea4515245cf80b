"""The part of an exported folder that PyTorch reads.

encoder_I/          an encoder as Hugging Face names it; of a multi_model, each exit's
exits.safetensors   norm, pooler and classifier of each exit, as `0.pooler.weight`
reader.py           a reference reader (exported/pytorch_reader.py)
checks.py           what it verifies first (exported/checks.py)
"""

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sweet_jax.arrays import Params
from sweet_jax.export.encoder import take_parts
from sweet_jax.huggingface.config import load_config, read_config
from sweet_jax.huggingface.safetensors import export_encoder
from sweet_jax.serving.description import ModelDescription
from sweet_jax.system.files import write_whole
from sweet_jax.trees import flatten_paths

_HERE = Path(__file__).parents[1] / "standalone"
# As `torch.nn` names and lays them out; a head of learning to exit stays behind.
_NAMES = {
    "norm/scale": "norm.weight",
    "norm/bias": "norm.bias",
    "pooler/kernel": "pooler.weight",
    "pooler/bias": "pooler.bias",
    "classifier/kernel": "classifier.weight",
    "classifier/bias": "classifier.bias",
}


def write_pytorch(
    model: Path, description: ModelDescription, params: Params, out: Path
) -> None:
    """Writes encoders, exits and their reader.

    Args:
        model: the model folder.
        description: of the model.
        params: of the model.
        out: the folder to write.

    Raises:
        ValueError: segments have trained shared tables of their own, for which Hugging
            Face's encoders have no place.
    """
    config = load_config(model / "encoder", description.ignore_attributes)
    attributes = read_config(model / "encoder")
    for i, exits in enumerate(description.member_exits):
        encoder, last = take_parts(description, params, exits[-1])
        # A final norm must be there, though each exit has its own.
        norm = last.get("norm")
        export_encoder(encoder, None, config, attributes, out / f"encoder_{i}", norm)
    tensors = {}
    for number in range(len(description.exit_layers)):
        _, own = take_parts(description, params, number)
        for path, leaf in flatten_paths(own).items():
            if path in _NAMES:
                # A Linear's weight is [out, in]; a transposed view must be copied.
                laid = leaf.T if path.endswith("kernel") else leaf
                tensors[f"{number}.{_NAMES[path]}"] = np.ascontiguousarray(laid)
    with write_whole(out / "exits.safetensors") as file:
        save_file(tensors, file, metadata={"format": "pt"})
    shutil.copyfile(_HERE / "pytorch_reader.py", out / "reader.py")
    shutil.copyfile(_HERE / "checks.py", out / "checks.py")
