"""ModernBERT's window and rotation, and the final norm that every exit owns."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_modernbert import CONFIG
from recorded import load_recorded
from safetensors.numpy import load_file
from tiny_configs import TINY_CONFIGS

import sweet_jax
from sweet_jax.arrays import LogitBank
from sweet_jax.data.sources import load_task
from sweet_jax.huggingface.config import load_config, make_encoder, parse_config
from sweet_jax.huggingface.safetensors import export_encoder, load_encoder
from sweet_jax.models.init import compute_shapes, init_params, make_example_batch
from sweet_jax.models.masked_softmax import compute_masked_softmax
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment, split_model
from sweet_jax.models.rotary import compute_frequencies, rotate
from sweet_jax.runs import pipeline
from sweet_jax.runs.inputs import prepare
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.methods import make_members, separates_segments
from sweet_jax.trees import flatten_paths

NORM = "norm/scale"


@pytest.fixture(scope="module")
def config() -> Any:
    return parse_config(TINY_CONFIGS["modernbert"])


@pytest.fixture(scope="module")
def model(config) -> MultiExitClassifier:
    return MultiExitClassifier(
        encoder=make_encoder(config, 4, jnp.float32),
        exit_layers=(0, 1, 3),
        exit_numbers=(0, 1, 2),
        num_classes=2,
        features=config.hidden_size,
        settings=ExitSettings(pooling="mean", dropout=0.1),
    )


@pytest.fixture(scope="module")
def encoder_params(model) -> Any:
    # By numpy, which has nothing to compile.
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32),
        compute_shapes(model)["encoder"],
    )


def test_a_score_depends_on_the_distance_alone(rng):
    query, key = (jnp.asarray(rng.normal(size=(1, 1, 1, 8))) for _ in range(2))
    queries, keys = (
        rotate(jnp.tile(x, (1, 12, 1, 1)).astype(jnp.float32), 50.0)[0, :, 0]
        for x in (query, key)
    )
    scores = np.asarray(queries @ keys.T)
    for distance in range(-11, 12):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=0, atol=1e-5)
    # And it does depend on it: the two directions and most distances differ.
    assert len({round(float(score), 4) for score in scores[5]}) == 12
    np.testing.assert_array_equal(queries[0], query[0, 0, 0].astype(jnp.float32))


def test_pairs_turn_by_their_own_frequency():
    frequencies = compute_frequencies(100.0, 8)
    np.testing.assert_allclose(frequencies, 100.0 ** -np.array([0, 0.25, 0.5, 0.75]))
    # Number 1 and its partner, number 5.
    unit = jnp.zeros((1, 4, 1, 8)).at[..., 1].set(1.0)
    turned = np.asarray(rotate(unit, 100.0))[0, :, 0]
    angles = np.arange(4) * frequencies[1]
    np.testing.assert_allclose(turned[:, 1], np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(turned[:, 5], np.sin(angles), atol=1e-6)
    assert not turned[:, [0, 2, 3, 4, 6, 7]].any()


def test_angles_stay_exact_in_bfloat16():
    """Position 301 in bfloat16 would be 302, a radian further."""
    x = jnp.ones((1, 302, 1, 8), jnp.bfloat16)
    turned = rotate(x, 50.0)
    assert turned.dtype == jnp.bfloat16
    want = rotate(x.astype(jnp.float32), 50.0)
    np.testing.assert_allclose(turned.astype(jnp.float32), want, atol=0.01)


def test_local_layers_read_no_further_than_their_window(config, model, encoder_params):
    """By gradients: layers 0 and 3 are global, 1 and 2 read 2 tokens on each side."""
    length, query = 12, 6
    batch = make_example_batch(1, length)._replace(mask=np.ones((1, length), np.int32))
    encoder, params = model.encoder, {"params": encoder_params}
    carry: Any = encoder.apply(params, batch, False, method="embed")
    # Not the embeddings of one and the same token, which attention cannot tell apart.
    states = np.random.default_rng(0).normal(size=(1, length, 16)).astype(np.float32)

    @jax.jit
    def read(x_BLD):
        def run(x_BLD, i):
            out: Any = encoder.apply(
                params, {**carry, "x_BLD": x_BLD}, i, i + 1, False, method="run_layers"
            )
            return out["x_BLD"][0, query].sum()

        return [jax.grad(run)(x_BLD, i) for i in range(4)]

    near = np.abs(np.arange(length) - query) <= 2
    for i, gradient in enumerate(read(states)):
        is_read = np.asarray(gradient)[0].any(axis=1)
        want = near if config.layer_types[i] == "sliding_attention" else near | True
        np.testing.assert_array_equal(is_read, want, err_msg=str(i))


def test_what_replaces_attention_is_given_the_window(model, encoder_params):
    seen = []

    def attend(scores_BHLM, mask):
        seen.append((scores_BHLM.dtype, mask.shape))
        return compute_masked_softmax(scores_BHLM, mask)

    encoder = model.encoder.clone(attention_fns=(attend,) * 4, dtype=jnp.bfloat16)
    out = jax.eval_shape(
        encoder.apply, {"params": encoder_params}, make_example_batch(2, 9)
    )
    assert out["x_BLD"].dtype == jnp.bfloat16
    assert [shape for _, shape in seen] == [
        *((2, 1, 1, 9), (2, 1, 9, 9), (2, 1, 9, 9), (2, 1, 1, 9)),
    ]
    assert {dtype for dtype, _ in seen} == {jnp.dtype(jnp.float32)}


def test_layers_run_in_any_split_as_in_one(model, encoder_params, rng):
    mask = (np.arange(9)[None] < np.array([[9], [4]])).astype(np.int32)
    ids = rng.integers(5, 60, (2, 9)).astype(np.int32)
    batch = make_example_batch(2, 9)._replace(token_ids=ids, mask=mask)

    @jax.jit
    def run(params):
        def call(method, *inputs) -> Any:
            arguments = (*inputs, False)
            return model.encoder.apply({"params": params}, *arguments, method=method)

        start = call("embed", batch)
        return [
            call("run_layers", call("run_layers", start, 0, k), k, 4)["x_BLD"]
            for k in range(5)
        ]

    whole, *splits = run(encoder_params)
    assert np.isfinite(whole).all()
    for split in splits:
        np.testing.assert_allclose(split, whole, rtol=1e-6, atol=1e-6)


def test_type_ids_are_not_read(model, encoder_params):
    batch = make_example_batch(1, 6)._replace(mask=np.ones((1, 6), np.int32))
    other = batch._replace(type_ids=np.ones((1, 6), np.int32))
    one, two = (
        model.encoder.apply({"params": encoder_params}, b, False, method="embed")
        for b in (batch, other)
    )
    np.testing.assert_array_equal(one["x_BLD"], two["x_BLD"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("method", "want"),
    [("sweet", [3]), ("early_exit", [3]), ("multi_model", [1, 1, 1])],
)
def test_every_exit_of_every_method_owns_a_norm(model, method, want):
    settings = from_config_dict({"method": method})
    members = make_members(settings, 3)
    exits = [member.exits for member in members]
    models = split_model(model, exits, separates_segments(members))
    paths = [path for part in models for path in flatten_paths(compute_shapes(part))]
    norms = [path for path in paths if path.startswith("exits/") and NORM in path]
    assert norms == [f"exits/exit_{i}/{NORM}" for i in range(3)]
    assert [find_segment(path, (0, 1, 3)) for path in norms] == [0, 1, 2]
    counts = [
        sum(path in norms for path in flatten_paths(compute_shapes(part)))
        for part in models
    ]
    assert counts == want


def test_norms_start_as_the_checkpoints_and_are_never_fresh(model, encoder_params):
    scale = np.linspace(1, 2, 16, dtype=np.float32)
    arguments = (model, jax.random.key(0), encoder_params, None)
    params = init_params(*arguments, {"scale": scale})
    for part in params["exits"].values():
        np.testing.assert_array_equal(part["norm"]["scale"], scale)
    with pytest.raises(ValueError, match=r"missing: exits/exit_0/norm/scale, .*exit_2"):
        init_params(*arguments)


def test_an_exit_reads_the_normed_state(model, encoder_params, rng):
    """An exit after layer i answers as PyTorch's model cut behind it would: normed."""
    params = init_params(
        model, jax.random.key(0), encoder_params, None, {"scale": np.ones(16)}
    )
    x_BLD = rng.normal(3, 5, (2, 4, 16)).astype(np.float32)
    mask_BL = np.ones((2, 4), np.int32)

    def read(x_BLD) -> Any:
        carry = {"x_BLD": x_BLD, "mask_BL": mask_BL}
        return model.apply({"params": params}, 1, carry, method="exit_outputs")

    # The same up to a shift and a scale: a norm does not see them.
    got, moved = read(x_BLD).logits_BC, read(7 * x_BLD + 2).logits_BC
    np.testing.assert_allclose(got, moved, rtol=1e-4, atol=1e-4)


def test_the_final_norm_is_exported_and_not_left_out(tmp_path):
    recorded = load_recorded("modernbert")
    loaded, config = recorded.loaded, recorded.config
    assert loaded.pooler is None
    assert loaded.final_norm is not None
    export_encoder(loaded.encoder, None, config, CONFIG, tmp_path, loaded.final_norm)
    again = load_encoder(tmp_path, config, 3)
    want = flatten_paths(recorded.get_checkpoint())
    got = flatten_paths({**again.encoder, "final_norm": again.final_norm})
    assert got.keys() == want.keys()
    for path, leaf in want.items():
        np.testing.assert_array_equal(got[path], leaf, err_msg=path)
    # Without its norm the folder would hold another model.
    with pytest.raises(ValueError, match="final_norm/scale"):
        export_encoder(loaded.encoder, None, config, CONFIG, tmp_path / "none")


def test_a_truncated_encoder_exports_the_kinds_of_its_layers(tmp_path):
    recorded = load_recorded("modernbert")
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    attributes = {k: v for k, v in CONFIG.items() if k != "global_attn_every_n_layers"}
    attributes["layer_types"] = kinds
    source = recorded.write_folder(tmp_path)
    cut = load_encoder(source, recorded.config, 2)
    out = tmp_path / "out"
    export_encoder(cut.encoder, None, recorded.config, attributes, out, cut.final_norm)
    assert json.loads((out / "config.json").read_text())["layer_types"] == kinds[:2]
    config = load_config(out)
    assert config.num_layers == 2
    again = load_encoder(out, config, 2)
    assert flatten_paths(again.encoder).keys() == flatten_paths(cut.encoder).keys()
    # The source is left as it was.
    assert attributes["layer_types"] == kinds


@pytest.mark.slow
def test_a_checkpoints_pooler_is_asked_for_in_vain(tiny_config, tiny_modernbert):
    tiny_config["encoder"]["name"] = str(tiny_modernbert)
    tiny_config["exits"]["pooler_init"] = "checkpoint"
    with pytest.raises(ValueError, match=r"no pooler: set exits\.pooler_init=fresh"):
        prepare(from_config_dict(tiny_config))


@pytest.mark.slow
def test_a_sweet_run_trains_and_serves_a_norm_for_each_exit(
    tiny_config, tiny_modernbert, shared_cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    tiny_config["encoder"]["name"] = str(tiny_modernbert)
    tiny_config["exits"]["layers"] = (0, 1)
    tiny_config["data"]["buckets"] = (16,)
    settings = from_config_dict(tiny_config)
    path, _ = pipeline.run(settings, tmp_path / "run", quiet=True)
    params = load_file(path / "model" / "params.safetensors")
    start = load_file(tiny_modernbert / "model.safetensors")["final_norm.weight"]
    first, second = (params[f"exits/exit_{i}/{NORM}"] for i in range(2))
    assert (first != start).any()
    assert (second != start).any()
    assert (first != second).any()
    examples = load_task(settings.data).splits["test"]
    classifier = sweet_jax.load(path / "model")
    served = classifier.collect(examples)
    measured = LogitBank.load(path / "logits_test.npz")
    np.testing.assert_array_equal(served.row_ids, measured.row_ids)
    np.testing.assert_allclose(served.logits, measured.logits, rtol=0, atol=1e-5)
    answers = classifier.predict(list(examples.texts))
    want = measured.logits[:, -1].argmax(axis=1)
    assert [classifier.label_names[i] for i in want] == [p.label for p in answers]
