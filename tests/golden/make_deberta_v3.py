"""Records what PyTorch transformers computes for a tiny DeBERTa-v3: `deberta_v3.npz`.

    cd tests && python -m golden.make_deberta_v3      # needs torch and transformers

Its attributes are those of the published v3, but for sizes. See `recording` for what
the file holds.
"""

from pathlib import Path
from typing import Any

import numpy as np
from golden import recording

PATH = Path(__file__).with_name("deberta_v3.npz")
CONFIG: dict[str, Any] = {
    "model_type": "deberta-v2",
    **recording.SIZES,
    "max_position_embeddings": 40,
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": "p2c|c2p",
    # Fewer than tokens; they reach as far as there are positions.
    "position_buckets": 10,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    # Far from the usual 1e-7, so that an epsilon not read from the config shows.
    "layer_norm_eps": 1e-3,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}


def record() -> dict[str, np.ndarray]:
    """Returns everything the file holds."""
    inputs = recording.make_inputs(CONFIG["vocab_size"], 0, limit=40, pairs=True)
    return recording.record(CONFIG, inputs)


if __name__ == "__main__":
    recording.write(PATH, record())
