"""Records what PyTorch transformers computes for a tiny DeBERTa-v2: `deberta_v2.npz`.

    cd tests && python -m golden.make_deberta_v2      # needs torch and transformers

It has a convolution and maps of positions of their own; `make_deberta_v3` has what is
left out here. See `recording` for what the file holds; beside that, `distances` and
`buckets/NUM/REACH`: the bucket of every distance up to 600.
"""

from pathlib import Path
from typing import Any

import numpy as np
from golden import recording

PATH = Path(__file__).with_name("deberta_v2.npz")
CONFIG: dict[str, Any] = {
    "model_type": "deberta-v2",
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "attention_head_size": 8,
    "intermediate_size": 48,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    # Fewer than tokens, and a reach short of the longest case.
    "position_buckets": 8,
    "max_relative_positions": 24,
    "position_biased_input": True,
    "share_att_key": False,
    "norm_rel_ebd": "none",
    # Not the usual 3; an activation that is neither the default nor hidden_act.
    "conv_kernel_size": 5,
    "conv_act": "relu",
    # Far from the usual 1e-7, so that an epsilon not read from the config shows.
    "layer_norm_eps": 1e-3,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}
# Of published models, and odd ones.
BUCKETS = ((256, 512), (8, 24), (32, 512), (6, 300), (64, 65))


def record() -> dict[str, np.ndarray]:
    """Returns everything the file holds."""
    inputs = recording.make_inputs(CONFIG["vocab_size"], 0, limit=40, pairs=True)
    return recording.record(CONFIG, inputs) | record_buckets()


def record_buckets() -> dict[str, np.ndarray]:
    """Returns the bucket of distances near and far, on both sides."""
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import (
        make_log_bucket_position,
    )

    distances = np.arange(-600, 601)
    buckets = {
        f"buckets/{number}/{reach}": make_log_bucket_position(
            torch.from_numpy(distances), number, reach
        )
        .long()
        .numpy()
        for number, reach in BUCKETS
    }
    return {"distances": distances, **buckets}


if __name__ == "__main__":
    recording.write(PATH, record())
