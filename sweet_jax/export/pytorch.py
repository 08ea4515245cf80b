"""Writes the part of an exported folder that is for PyTorch.

encoder_I/          an encoder in Hugging Face's format; for multi_model one per exit
exits.safetensors   norm, pooler and classifier of each exit, as `0.pooler.weight`
reader.py           a reference reader (standalone/pytorch_reader.py)
checks.py           checks that it makes first (standalone/checks.py)
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
# Names in `torch.nn`; heads of learning to exit are not exported.
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
        description: description of the model.
        params: parameters of the model.
        out: the folder to write.

    Raises:
        ValueError: each segment has trained its own copy of shared tables; Hugging
            Face's encoders have only one.
    """
    config = load_config(model / "encoder", description.ignore_attributes)
    attributes = read_config(model / "encoder")
    for i, exits in enumerate(description.member_exits):
        encoder, last = take_parts(description, params, exits[-1])
        # Hugging Face's encoder needs a final norm, though each exit has its own.
        norm = last.get("norm")
        export_encoder(encoder, None, config, attributes, out / f"encoder_{i}", norm)
    tensors = {}
    for number in range(len(description.exit_layers)):
        _, own = take_parts(description, params, number)
        for path, leaf in flatten_paths(own).items():
            if path in _NAMES:
                # A Linear's weight is [out, in]; the transposed view is copied.
                laid = leaf.T if path.endswith("kernel") else leaf
                tensors[f"{number}.{_NAMES[path]}"] = np.ascontiguousarray(laid)
    with write_whole(out / "exits.safetensors") as file:
        save_file(tensors, file, metadata={"format": "pt"})
    shutil.copyfile(_HERE / "pytorch_reader.py", out / "reader.py")
    shutil.copyfile(_HERE / "checks.py", out / "checks.py")
