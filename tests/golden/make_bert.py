"""Records what PyTorch transformers computes for a tiny BERT: `bert.npz`.

    cd tests && python -m golden.make_bert      # needs torch and transformers

See `recording` for what the file holds; beside that, `minilm/token_ids` (`mask`,
`last`): the embedded encoder's last layer.
"""

from pathlib import Path
from typing import Any

import numpy as np
from golden import recording

PATH = Path(__file__).with_name("bert.npz")
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    **recording.SIZES,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    # Far from the usual 1e-12, so that an epsilon not read from the config shows.
    "layer_norm_eps": 1e-3,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}


def make_inputs() -> dict[str, recording.Case]:
    """Returns case -> token_ids, type_ids, mask, each [B, L] int32."""
    return recording.make_inputs(CONFIG["vocab_size"], 0, limit=40, pairs=True)


def record() -> dict[str, np.ndarray]:
    """Returns everything the file holds."""
    return recording.record(CONFIG, make_inputs()) | record_embedded_encoder()


def record_embedded_encoder() -> dict[str, np.ndarray]:
    """Returns inputs and last layer of the real all-MiniLM-L6."""
    import torch
    import transformers

    from sweet_jax.huggingface.find_encoder import find_encoder
    from sweet_jax.settings.fields import EncoderSettings

    folder = find_encoder(EncoderSettings(name="minilm-l6"))
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(
        ["a gorgeous , witty , seductive movie .", "too slow"],
        padding=True,
        return_tensors="np",
    )
    case = {
        "token_ids": rows["input_ids"].astype(np.int32),
        "type_ids": np.zeros_like(rows["input_ids"], np.int32),
        "mask": rows["attention_mask"].astype(np.int32),
    }
    with torch.no_grad():
        last = recording.run_model(model.eval(), case).last_hidden_state.numpy()
    return {
        "minilm/token_ids": case["token_ids"],
        "minilm/mask": case["mask"],
        "minilm/last": last,
    }


if __name__ == "__main__":
    recording.write(PATH, record())
