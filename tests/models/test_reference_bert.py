"""BERT against live PyTorch transformers: the oracle behind the recorded numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import make_bert, recording
from safetensors.numpy import save_file

from sweet_jax.arrays import Batch
from sweet_jax.huggingface.config import load_config, make_encoder, read_config
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.safetensors import (
    LoadedEncoder,
    export_encoder,
    load_encoder,
)
from sweet_jax.models.bert import BertConfig
from sweet_jax.settings.fields import EncoderSettings
from sweet_jax.trees import flatten_paths

pytestmark = [
    pytest.mark.reference,
    pytest.mark.usefixtures("highest_precision"),
]


@pytest.fixture(scope="module")
def embedded():
    """Folder, config and weights of the embedded encoder."""
    folder = find_encoder(EncoderSettings(name="minilm-l6"))
    config = load_config(folder)
    return folder, config, load_encoder(folder, config, config.num_layers)


def make_batch(case: dict[str, np.ndarray]) -> Batch:
    rows = case["mask"].shape[0]
    return Batch(
        *(jnp.asarray(case[key]) for key in ("token_ids", "type_ids", "mask")),
        labels=jnp.zeros(rows, jnp.int32),
        weights=jnp.ones(rows),
        row_ids=jnp.arange(rows),
    )


def make_random_case(config: BertConfig, lengths: list[int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    real = np.arange(max(lengths))[None] < np.asarray(lengths)[:, None]
    return {
        "token_ids": np.where(real, rng.integers(1, config.vocab_size, real.shape), 0),
        "type_ids": np.where(real, rng.integers(0, 2, real.shape), 0),
        "mask": real.astype(np.int32),
    }


def compute_gradients(
    config: BertConfig, loaded: LoadedEncoder, batch: Batch, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns PyTorch's name -> our gradient of the scalar loss, in its layout."""
    encoder = make_encoder(config, config.num_layers, jnp.float32)

    @jax.jit
    @jax.grad
    def compute(params):
        carry = encoder.apply({"params": params}, batch)
        return (carry["x_BLD"] * weights).sum()  # type: ignore[index]

    named = {}
    for path, gradient in flatten_paths(compute(loaded.encoder)).items():
        row = NAME_MAPS["bert"].to_theirs(path)
        assert row is not None
        name, transform = row
        named[name] = np.asarray(gradient.T if transform == "transpose" else gradient)
    return named


def check_gradients(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        # Softmax does not see a key bias: relative means relative to the query's.
        scale_name = name.replace("key.bias", "query.bias")
        atol = 1e-4 * np.abs(want[scale_name]).max()
        np.testing.assert_allclose(got[name], gradient, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("hidden_act", ["gelu_new", "relu", "silu"])
def test_other_activations_equal_pytorch(tmp_path, hidden_act):
    import torch

    attributes = {**make_bert.CONFIG, "hidden_act": hidden_act}
    model = recording.make_model(attributes)
    tensors = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(attributes))
    config = load_config(tmp_path)
    params = load_encoder(tmp_path, config, config.num_layers).encoder
    case = make_bert.make_inputs()["pairs"]
    with torch.no_grad():
        want = recording.run_model(model, case).last_hidden_state.numpy()
    encoder = make_encoder(config, config.num_layers, jnp.float32)
    run = jax.jit(lambda params: encoder.apply({"params": params}, make_batch(case)))
    np.testing.assert_allclose(run(params)["x_BLD"], want, rtol=0, atol=1e-4)


def test_the_embedded_encoder_equals_pytorch_in_values_and_gradients(embedded):
    import transformers

    folder, config, loaded = embedded
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager")
    case = make_random_case(config, lengths=[32, 9, 1])
    batch = make_batch(case)
    encoder = make_encoder(config, config.num_layers, jnp.float32)
    run = jax.jit(lambda params: encoder.apply({"params": params}, batch))
    want = recording.run_model(model.eval(), case).last_hidden_state.detach().numpy()
    got = run(loaded.encoder)["x_BLD"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)
    weights = recording.make_loss_weights(case["mask"], config.hidden_size)
    check_gradients(
        compute_gradients(config, loaded, batch, weights),
        recording.compute_gradients(model, case, weights),
    )


def test_an_exported_encoder_loads_in_pytorch_without_a_remark(embedded, tmp_path):
    import torch
    import transformers

    folder, config, loaded = embedded
    attributes = read_config(folder)
    export_encoder(loaded.encoder, loaded.pooler, config, attributes, tmp_path)
    model, remarks = transformers.BertModel.from_pretrained(
        tmp_path, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not remarks[kind], kind
    original = transformers.BertModel.from_pretrained(folder).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, original[name]), name
