"""Constant heads against PyTorch transformers with hooks on its attention."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import recording
from recorded import load_recorded

from sweet_jax.huggingface.config import make_encoder
from sweet_jax.models.constant_attention import insert_constants, place_constants
from sweet_jax.models.masked_softmax import compute_masked_softmax

pytestmark = [
    pytest.mark.reference,
    pytest.mark.usefixtures("highest_precision"),
]

# All heads of the first layer, two of four of the second.
_HEADS = ((0, 1, 2, 3), (1, 2))


def _compute_values(attention: Any, x_BLD: Any) -> Any:
    """Returns their values, [B, L, H, K]."""
    shape = (*x_BLD.shape[:2], 4, -1)
    if hasattr(attention, "in_proj"):
        packed = attention.in_proj(x_BLD).view(shape)
        return packed.chunk(3, dim=-1)[2] + attention.v_bias.view(1, 1, 4, -1)
    value = getattr(attention, "value", None) or attention.value_proj
    return value(x_BLD).view(shape)


def _hook(model: Any, constants_NHLL: np.ndarray, mask_BL: np.ndarray) -> None:
    """Replaces the context of constant heads, whatever the model computes for them."""
    import torch

    real = torch.from_numpy(mask_BL.astype(np.float32))
    pairs = real[:, None, :, None] * real[:, None, None, :]
    for i, layer in enumerate(model.encoder.layer):

        def replace(attention: Any, args: Any, kwargs: Any, output: Any, i: int) -> Any:
            x_BLD = args[0] if args else kwargs["hidden_states"]
            weights = torch.from_numpy(constants_NHLL[i])[None] * pairs
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
            values = _compute_values(attention, x_BLD)
            context = torch.einsum("bhlm,bmhk->blhk", weights, values)
            merged = output[0].reshape(context.shape).clone()
            merged[:, :, list(_HEADS[i])] = context[:, :, list(_HEADS[i])]
            return (merged.reshape(output[0].shape), *output[1:])

        layer.attention.self.register_forward_hook(
            functools.partial(replace, i=i), with_kwargs=True
        )


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "deberta", "deberta_v2", "deberta_v3"]
)
def test_constants_and_states_are_those_of_hooked_pytorch(name):
    import torch

    model = recording.make_model(importlib.import_module(f"golden.make_{name}").CONFIG)
    recorded = load_recorded(name)
    batch = recorded.make_batch("pairs")
    mask = np.asarray(batch.mask)
    inputs = {
        "input_ids": torch.from_numpy(np.array(batch.token_ids)).long(),
        "attention_mask": torch.from_numpy(mask.copy()).long(),
    }
    if recorded.config.num_types > 1:
        inputs["token_type_ids"] = torch.from_numpy(np.array(batch.type_ids)).long()
    with torch.no_grad():
        theirs = model(**inputs, output_attentions=True).attentions
    pairs = mask[:, None, :, None] * mask[:, None, None, :]
    sums = np.stack([(layer.numpy() * pairs).sum(0) for layer in theirs])
    constants = sums / np.maximum(pairs.sum(0), 1)[None]
    constants = constants.astype(np.float32)

    seen = []

    def record(scores_BHLM: jax.Array, mask: jax.Array) -> jax.Array:
        seen.append(compute_masked_softmax(scores_BHLM, mask))
        return seen[-1]

    ours = make_encoder(recorded.config, 2, jnp.float32)
    variables = {"params": recorded.loaded.encoder}
    ours.clone(attention_fns=(record, record)).apply(variables, batch)
    sums = np.stack([(np.asarray(layer) * pairs).sum(0) for layer in seen])
    found = sums / np.maximum(pairs.sum(0), 1)[None]
    np.testing.assert_allclose(found, constants, atol=1e-4)

    _hook(model, constants, mask)
    with torch.no_grad():
        hooked = model(**inputs, output_hidden_states=True).hidden_states
    encoder = ours.clone(
        attention_fns=place_constants(_HEADS, constants.shape[-1])
    ).bind({"params": insert_constants(variables["params"], constants, _HEADS)})
    carry = encoder.embed(batch, False)
    real = mask.astype(bool)
    for i in range(2):
        carry = encoder.run_layers(carry, i, i + 1, False)
        want = hooked[i + 1].numpy()[real]
        np.testing.assert_allclose(carry["x_BLD"][real], want, atol=1e-4)
        plain = recorded.get_states("pairs")[i + 1][real]
        assert np.abs(want - plain).max() > 1e-2
