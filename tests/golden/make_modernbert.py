"""Records what PyTorch transformers computes for a tiny ModernBERT: `modernbert.npz`.

    cd tests && python -m golden.make_modernbert   # needs torch and transformers

See `recording` for what the file holds.
"""

from pathlib import Path
from typing import Any

import numpy as np
from golden import recording

PATH = Path(__file__).with_name("modernbert.npz")
# Under the names of published files; numbers lie far from their defaults, so that one
# that is not read shows.
CONFIG: dict[str, Any] = {
    "model_type": "modernbert",
    "vocab_size": 60,
    # Narrow: nothing norms the state, so it grows with the width, and of numbers much
    # above 10 float32 does not hold the fifth decimal.
    "hidden_size": 16,
    # Global, local, global: by the default period of 3 the last would be local, too.
    "num_hidden_layers": 3,
    "global_attn_every_n_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "hidden_activation": "gelu",
    "max_position_embeddings": 40,
    # Odd: 3 tokens on each side, far fewer than an input may have.
    "local_attention": 7,
    "global_rope_theta": 50.0,
    "local_rope_theta": 6.0,
    "norm_eps": 1e-3,
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "embedding_dropout": 0.1,
    "attention_dropout": 0.1,
    "mlp_dropout": 0.1,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}


def record() -> dict[str, np.ndarray]:
    """Returns everything the file holds."""
    inputs = recording.make_inputs(CONFIG["vocab_size"], 0, limit=40, pairs=False)
    return recording.record(CONFIG, inputs)


if __name__ == "__main__":
    recording.write(PATH, record())
