"""The recordings of tests/golden: encoders with PyTorch's own inputs and outputs."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from sweet_jax.arrays import Batch, Params
from sweet_jax.huggingface.config import load_config
from sweet_jax.huggingface.safetensors import LoadedEncoder, load_encoder

GOLDEN = Path(__file__).parent / "golden"
# Files of tests/golden; a family whose parts exclude each other has several.
RECORDINGS = (
    *("bert", "roberta", "mpnet", "modernbert"),
    *("deberta", "deberta_v2", "deberta_v3"),
)
CASES = ("unpadded", "padded", "pairs", "one_token", "position_limit")


def make_batch(token_ids, type_ids=None, mask=None) -> Batch:
    token_ids = jnp.asarray(token_ids, jnp.int32)
    rows = token_ids.shape[0]
    return Batch(
        token_ids=token_ids,
        type_ids=jnp.zeros_like(token_ids) if type_ids is None else type_ids,
        mask=jnp.ones_like(token_ids) if mask is None else jnp.asarray(mask),
        labels=jnp.zeros(rows, jnp.int32),
        weights=jnp.ones(rows),
        row_ids=jnp.arange(rows),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
    """One recording; `config` and `loaded` are what our readers made of it."""

    name: str
    arrays: dict[str, np.ndarray]
    config: Any
    loaded: LoadedEncoder

    def make_batch(self, case: str) -> Batch:
        """Returns the recorded input of a case."""
        names = ("token_ids", "type_ids", "mask")
        return make_batch(*(self.arrays[f"input/{case}/{name}"] for name in names))

    def get_states(self, case: str) -> list[np.ndarray]:
        """Returns PyTorch's embeddings and the output of each layer."""
        names = ["embeddings", *(f"layer_{i}" for i in range(self.config.num_layers))]
        return [self.arrays[f"output/{case}/{name}"] for name in names]

    def get_last(self, case: str) -> np.ndarray:
        """Returns PyTorch's last hidden state, behind the final norm where one is."""
        name = f"output/{case}/final_norm"
        return self.arrays[name] if name in self.arrays else self.get_states(case)[-1]

    def get_checkpoint(self) -> Params:
        """Returns the encoder's parameters, with those of its pooler and final norm."""
        behind = {"pooler": self.loaded.pooler, "final_norm": self.loaded.final_norm}
        parts = {name: part for name, part in behind.items() if part is not None}
        return {**self.loaded.encoder, **parts}

    def write_folder(self, folder: Path) -> Path:
        """Writes the recorded model as a Hugging Face folder."""
        return write_folder(self.arrays, folder)


def write_folder(arrays: dict[str, np.ndarray], folder: Path) -> Path:
    tensors = {
        name.removeprefix("tensor/"): array
        for name, array in arrays.items()
        if name.startswith("tensor/")
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(str(arrays["config"]))
    return folder


@functools.cache
def load_recorded(name: str) -> Recorded:
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(arrays, Path(temporary))
        config = load_config(folder)
        loaded = load_encoder(folder, config, config.num_layers)
        return Recorded(name, arrays, config, loaded)
