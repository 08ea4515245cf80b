"""Every family against live PyTorch transformers: recordings, sizes, exports."""

import importlib

import numpy as np
import pytest
from golden import recording
from published import PUBLISHED
from recorded import GOLDEN, RECORDINGS, load_recorded

from sweet_jax.huggingface.config import parse_config
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.safetensors import compute_shapes, export_encoder

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_recording_is_what_pytorch_computes_now(name):
    fresh = importlib.import_module(f"golden.make_{name}").record()
    with np.load(GOLDEN / f"{name}.npz") as recorded:
        assert set(recorded.files) == fresh.keys()
        for key in recorded.files:
            if recorded[key].dtype.kind in "fi":
                np.testing.assert_allclose(
                    fresh[key], recorded[key], rtol=1e-4, atol=1e-4, err_msg=key
                )
            else:
                assert fresh[key] == recorded[key]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_leaf_by_leaf(name):
    import torch
    import transformers

    attributes, _ = PUBLISHED[name]
    # On the meta device no memory is filled.
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(**attributes)
        )
    want = {name: tuple(p.shape) for name, p in model.named_parameters()}
    config = parse_config(attributes)
    got = {}
    for path, shape in compute_shapes(config, config.num_layers).items():
        row = NAME_MAPS[config.family].to_theirs(path)
        assert row is not None
        name, transform = row
        got[name] = shape[::-1] if transform == "transpose" else shape
    assert got == want


@pytest.mark.parametrize("name", RECORDINGS)
def test_an_exported_encoder_loads_in_pytorch_without_a_remark(name, tmp_path):
    import torch
    import transformers

    recorded = load_recorded(name)
    attributes = importlib.import_module(f"golden.make_{name}").CONFIG
    loaded, config = recorded.loaded, recorded.config
    export_encoder(
        loaded.encoder,
        loaded.pooler,
        config,
        attributes,
        tmp_path,
        loaded.final_norm,
    )
    model, remarks = transformers.AutoModel.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not remarks[kind], kind
    for key, tensor in model.named_parameters():
        assert torch.equal(tensor, torch.from_numpy(recorded.arrays[f"tensor/{key}"]))
    keys = ("token_ids", "type_ids", "mask")
    case = {key: recorded.arrays[f"input/pairs/{key}"] for key in keys}
    with torch.no_grad():
        last = recording.run_model(model.eval(), case).last_hidden_state.numpy()
    np.testing.assert_allclose(last, recorded.get_last("pairs"), atol=1e-5)
