"""Records what PyTorch transformers computes for a tiny DeBERTa: `deberta.npz`.

    cd tests && python -m golden.make_deberta      # needs torch and transformers

See `recording` for what the file holds.
"""

from pathlib import Path
from typing import Any

import numpy as np
from golden import recording

PATH = Path(__file__).with_name("deberta.npz")
CONFIG: dict[str, Any] = {
    "model_type": "deberta",
    **recording.SIZES,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    # Less than all cases but one are long, so that the clamp at the ends shows.
    "max_relative_positions": 6,
    "position_biased_input": True,
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
