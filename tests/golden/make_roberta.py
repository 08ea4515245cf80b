"""Records what PyTorch transformers computes for a tiny RoBERTa: `roberta.npz`.

    cd tests && python -m golden.make_roberta      # needs torch and transformers

See `recording` for what the file holds.
"""

from pathlib import Path
from typing import Any

import numpy as np
from golden import recording

PATH = Path(__file__).with_name("roberta.npz")
CONFIG: dict[str, Any] = {
    "model_type": "roberta",
    **recording.SIZES,
    # 40 tokens: four rows belong to padding and to what precedes it.
    "max_position_embeddings": 44,
    "type_vocab_size": 1,
    # Far from the usual 1e-5, so that an epsilon not read from the config shows.
    "layer_norm_eps": 1e-3,
    "initializer_range": 0.02,
    # Not the usual 1, so that an offset not read from the config shows.
    "pad_token_id": 3,
}


def record() -> dict[str, np.ndarray]:
    """Returns everything the file holds."""
    inputs = recording.make_inputs(CONFIG["vocab_size"], 3, limit=40, pairs=False)
    return recording.record(CONFIG, inputs)


if __name__ == "__main__":
    recording.write(PATH, record())
