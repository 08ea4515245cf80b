"""Records what PyTorch transformers computes for a tiny MPNet: `mpnet.npz`.

    cd tests && python -m golden.make_mpnet      # needs torch and transformers

See `recording` for what the file holds; beside that, `distances` and `buckets`: the
bucket of every distance up to 600.
"""

from pathlib import Path
from typing import Any

import numpy as np
from golden import recording

PATH = Path(__file__).with_name("mpnet.npz")
CONFIG: dict[str, Any] = {
    "model_type": "mpnet",
    **recording.SIZES,
    # 40 tokens: two rows belong to padding and to what precedes it.
    "max_position_embeddings": 42,
    "relative_attention_num_buckets": 32,
    # Far from the usual 1e-5, so that an epsilon not read from the config shows.
    "layer_norm_eps": 1e-3,
    "initializer_range": 0.02,
    "pad_token_id": 1,
}


def record() -> dict[str, np.ndarray]:
    """Returns everything the file holds."""
    inputs = recording.make_inputs(CONFIG["vocab_size"], 1, limit=40, pairs=False)
    return recording.record(CONFIG, inputs) | record_buckets()


def record_buckets() -> dict[str, np.ndarray]:
    """Returns the bucket of distances near and far, on both sides."""
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = np.arange(-600, 601)
    buckets = MPNetEncoder.relative_position_bucket(torch.from_numpy(distances))
    return {"distances": distances, "buckets": buckets.numpy()}


if __name__ == "__main__":
    recording.write(PATH, record())
