"""Records what PyTorch transformers computes for a tiny BERT: `bert.npz`.

    python tests/golden/make_bert.py        # needs torch and transformers

Every parameter, biases and norms included, is random with standard deviation 0.3 or
more: at the usual 0.02, swapping query and key would move outputs by 4e-4 only. Numbers
come from numpy, so the recording does not hang on torch's generator.

Keys of the file: `config` (JSON), `tensor/NAME`, `input/CASE/token_ids` (`type_ids`,
`mask`), `output/CASE/embeddings` (`layer_0`, `layer_1`, `pooler`), `gradient/NAME`
(of the scalar loss on the case `pairs`), `minilm/token_ids` (`mask`, `last`: the
embedded encoder's last layer).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).with_name("bert.npz")
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    # Far from the usual 1e-12, so that an epsilon not read from the config shows.
    "layer_norm_eps": 1e-3,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}


def make_inputs() -> dict[str, dict[str, np.ndarray]]:
    """Returns case -> token_ids, type_ids, mask, each [B, L] int32."""
    rng = np.random.default_rng(1)

    def make_case(lengths: list[int], size: int, pairs: bool) -> dict[str, np.ndarray]:
        real = np.arange(size)[None] < np.asarray(lengths)[:, None]
        ids = rng.integers(1, CONFIG["vocab_size"], real.shape)
        second = np.arange(size)[None] >= np.asarray(lengths)[:, None] // 2
        return {
            "token_ids": np.where(real, ids, 0).astype(np.int32),
            "type_ids": (second & real & pairs).astype(np.int32),
            "mask": real.astype(np.int32),
        }

    return {
        "unpadded": make_case([7, 7, 7], 7, pairs=False),
        "padded": make_case([7, 3, 1], 7, pairs=False),
        "pairs": make_case([12, 7, 9], 12, pairs=True),
        "one_token": make_case([1, 1], 1, pairs=False),
        "position_limit": make_case([40, 25], 40, pairs=True),
    }


def make_model() -> Any:
    """Returns the tiny BertModel in eval mode, parameters set from numpy."""
    import torch
    import transformers

    config = transformers.BertConfig(**CONFIG)
    # The plain implementation: the others are approximations of it.
    config._attn_implementation = "eager"
    model = transformers.BertModel(config).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            values = rng.normal(center, 0.35, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def run_model(model: Any, case: dict[str, np.ndarray]) -> Any:
    """Returns the model's output with all hidden states."""
    import torch

    return model(
        input_ids=torch.from_numpy(case["token_ids"]).long(),
        token_type_ids=torch.from_numpy(case["type_ids"]).long(),
        attention_mask=torch.from_numpy(case["mask"]).long(),
        output_hidden_states=True,
    )


def make_loss_weights(mask: np.ndarray, features: int) -> np.ndarray:
    """Returns fixed weights [B, L, D]: the scalar loss is sum(weights * last layer).

    Padding weighs nothing, as in any exit: PyTorch never updates the padding token's
    embedding (padding_idx), so its gradient is defined only where padding is not read.
    """
    weights = np.random.default_rng(2).normal(size=(*mask.shape, features))
    return np.where(mask[..., None] == 1, weights, 0).astype(np.float32)


def compute_gradients(
    model: Any, case: dict[str, np.ndarray], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns name -> gradient of the scalar loss, where the loss reads it."""
    import torch

    model.zero_grad()
    last = run_model(model, case).last_hidden_state
    (last * torch.from_numpy(weights)).sum().backward()
    return {
        name: parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None  # the pooler has no part in the loss
    }


def record() -> dict[str, np.ndarray]:
    """Returns everything the file holds."""
    import torch

    model = make_model()
    arrays = {"config": np.array(json.dumps(CONFIG))}
    for name, parameter in model.named_parameters():
        arrays[f"tensor/{name}"] = parameter.detach().numpy().copy()
    for case_name, case in make_inputs().items():
        arrays |= {f"input/{case_name}/{key}": value for key, value in case.items()}
        with torch.no_grad():
            output = run_model(model, case)
        names = ["embeddings", "layer_0", "layer_1"]
        for name, state in zip(names, output.hidden_states, strict=True):
            arrays[f"output/{case_name}/{name}"] = state.numpy()
        arrays[f"output/{case_name}/pooler"] = output.pooler_output.numpy()
    case = make_inputs()["pairs"]
    weights = make_loss_weights(case["mask"], CONFIG["hidden_size"])
    for name, gradient in compute_gradients(model, case, weights).items():
        arrays[f"gradient/{name}"] = gradient
    return arrays | record_embedded_encoder()


def record_embedded_encoder() -> dict[str, np.ndarray]:
    """Returns inputs and last layer of the real all-MiniLM-L6."""
    import torch
    import transformers

    from sweet_jax.models.presets import find_encoder
    from sweet_jax.settings import EncoderSettings

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
        last = run_model(model.eval(), case).last_hidden_state.numpy()
    return {
        "minilm/token_ids": case["token_ids"],
        "minilm/mask": case["mask"],
        "minilm/last": last,
    }


if __name__ == "__main__":
    np.savez_compressed(PATH, **record())  # type: ignore[arg-type]
    print(f"{PATH}: {PATH.stat().st_size} bytes")
