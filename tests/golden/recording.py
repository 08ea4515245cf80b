"""How PyTorch transformers is recorded: random weights, inputs, outputs, gradients.

Every parameter, biases and norms included, is random with standard deviation 0.3 or
more: at the usual 0.02, swapping query and key would move outputs by 4e-4 only. Numbers
come from numpy, so the recording does not hang on torch's generator.

Keys of a recording: `config` (JSON), `tensor/NAME`, `input/CASE/token_ids` (`type_ids`,
`mask`), `output/CASE/embeddings` (`layer_0`, ..., `final_norm` and `pooler` where there
is one) and `gradient/NAME` (of the scalar loss on the case `pairs`).
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Case = dict[str, np.ndarray]

# Attributes of the recorded post-norm encoders.
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def make_inputs(vocab_size: int, pad_id: int, limit: int, pairs: bool):
    """Returns case -> token_ids, type_ids, mask, each [B, L] int32.

    Args:
        vocab_size: rows of the word table.
        pad_id: padding; tokens have higher ids.
        limit: the most tokens the model takes.
        pairs: whether the second half of some cases has type 1.
    """
    rng = np.random.default_rng(1)

    def make_case(lengths: list[int], size: int, pairs: bool) -> Case:
        real = np.arange(size)[None] < np.asarray(lengths)[:, None]
        ids = rng.integers(pad_id + 1, vocab_size, real.shape)
        second = np.arange(size)[None] >= np.asarray(lengths)[:, None] // 2
        return {
            "token_ids": np.where(real, ids, pad_id).astype(np.int32),
            "type_ids": (second & real & pairs).astype(np.int32),
            "mask": real.astype(np.int32),
        }

    return {
        "unpadded": make_case([7, 7, 7], 7, pairs=False),
        "padded": make_case([7, 3, 1], 7, pairs=False),
        "pairs": make_case([12, 7, 9], 12, pairs=pairs),
        "one_token": make_case([1, 1], 1, pairs=False),
        "position_limit": make_case([limit, 25], limit, pairs=pairs),
    }


def make_model(config: Mapping[str, Any]) -> Any:
    """Returns the model of a config.json in eval mode, parameters set from numpy."""
    import torch
    import transformers

    theirs = transformers.AutoConfig.for_model(**config)
    # The plain implementation: the others are approximations of it.
    model = transformers.AutoModel.from_config(theirs, attn_implementation="eager")
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            center = 1.0 if name.lower().endswith("norm.weight") else 0.0
            values = rng.normal(center, 0.35, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model.eval()


def run_model(model: Any, case: Case) -> Any:
    """Returns the model's output with all hidden states."""
    import torch

    inputs = {"input_ids": case["token_ids"], "attention_mask": case["mask"]}
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = case["type_ids"]
    tensors = {name: torch.from_numpy(ids).long() for name, ids in inputs.items()}
    return model(**tensors, output_hidden_states=True)


def run_with_states(model: Any, case: Case) -> tuple[list[Any], Any]:
    """Returns the embeddings with the output of every layer, and the model's output.

    Pre-norm models report the normed state in place of their last layer's output: that
    one is taken from where it enters the norm.
    """
    if not hasattr(model, "final_norm"):
        output = run_model(model, case)
        return list(output.hidden_states), output
    entering: list[Any] = []
    hook = model.final_norm.register_forward_pre_hook(
        lambda _, inputs: entering.append(inputs[0])
    )
    output = run_model(model, case)
    hook.remove()
    return [*output.hidden_states[:-1], *entering], output


def make_loss_weights(mask: np.ndarray, features: int) -> np.ndarray:
    """Returns fixed weights [B, L, D]: the scalar loss is sum(weights * last layer).

    Padding weighs nothing, as in any exit: PyTorch never updates the padding token's
    embedding (padding_idx), so its gradient is defined only where padding is not read.
    """
    weights = np.random.default_rng(2).normal(size=(*mask.shape, features))
    return np.where(mask[..., None] == 1, weights, 0).astype(np.float32)


def compute_gradients(model: Any, case: Case, weights: np.ndarray) -> Case:
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


def record(config: Mapping[str, Any], inputs: Mapping[str, Case]) -> Case:
    """Returns everything a recording holds."""
    import torch

    model = make_model(config)
    arrays = {"config": np.array(json.dumps(config))}
    for name, parameter in model.named_parameters():
        arrays[f"tensor/{name}"] = parameter.detach().numpy().copy()
    for case_name, case in inputs.items():
        arrays |= {f"input/{case_name}/{key}": value for key, value in case.items()}
        with torch.no_grad():
            states, output = run_with_states(model, case)
        for i, state in enumerate(states):
            name = f"layer_{i - 1}" if i else "embeddings"
            arrays[f"output/{case_name}/{name}"] = state.numpy()
        if hasattr(model, "final_norm"):
            last = output.last_hidden_state.numpy()
            arrays[f"output/{case_name}/final_norm"] = last
        if "pooler_output" in output:
            arrays[f"output/{case_name}/pooler"] = output.pooler_output.numpy()
    weights = make_loss_weights(inputs["pairs"]["mask"], config["hidden_size"])
    for name, gradient in compute_gradients(model, inputs["pairs"], weights).items():
        arrays[f"gradient/{name}"] = gradient
    return arrays


def write(path: Path, arrays: Case) -> None:
    """Writes a recording."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    print(f"{path}: {path.stat().st_size} bytes")
