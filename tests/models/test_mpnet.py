"""MPNet's position bias and, through it, tables that layers share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_mpnet import CONFIG
from recorded import load_recorded
from segment_tables import check_trained_tables, trace_layers
from tiny_configs import TINY_CONFIGS

from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.huggingface.safetensors import export_encoder, load_encoder
from sweet_jax.models.init import compute_shapes, make_example_batch
from sweet_jax.models.mpnet import PositionBias, compute_buckets
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment, split_model
from sweet_jax.models.shared_tables import (
    compute_table_starts,
    copy_tables,
    join_tables,
)
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.methods import make_members, separates_segments
from sweet_jax.trees import flatten_paths

TABLE = "position_bias/embedding"


@pytest.fixture(scope="module")
def config():
    return parse_config(TINY_CONFIGS["mpnet"])


def test_buckets_equal_pytorch_at_every_distance():
    arrays = load_recorded("mpnet").arrays
    got = compute_buckets(arrays["distances"])
    np.testing.assert_array_equal(got, arrays["buckets"])


def test_a_pair_of_positions_reads_the_bucket_of_its_distance(config, rng):
    table = rng.normal(size=(32, 2)).astype(np.float32)
    params = {"position_bias": {"embedding": table}}
    (bias,) = PositionBias(config).apply({"params": params}, 20)
    assert bias.shape == (1, 2, 20, 20)
    for query, key in ((0, 0), (3, 19), (19, 3), (7, 8)):
        bucket = compute_buckets(np.array([key - query]))[0]
        np.testing.assert_array_equal(bias[0, :, query, key], table[bucket])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relative_attention_num_buckets": 64}, r"num_buckets=64 is not impl.* 32$"),
        ({"pad_token_id": 0}, r"pad_token_id=0 is not implemented"),
        ({"type_vocab_size": 2}, r"unknown attribute type_vocab_size"),
    ],
)
def test_what_pytorch_would_ignore_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        parse_config({**TINY_CONFIGS["mpnet"], **change})


def test_each_copy_belongs_to_its_segment(config):
    exit_layers = (0, 1, 3)
    starts = compute_table_starts(exit_layers)
    assert starts == (0, 1, 2)
    encoder = make_encoder(config, 4, jnp.float32).clone(table_starts=starts)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), make_example_batch())
    paths = [f"encoder/{path}" for path in flatten_paths(variables["params"])]
    owners = {path: find_segment(path, exit_layers) for path in paths if TABLE in path}
    assert owners == {f"encoder/shared_{i}/{TABLE}": i for i in range(3)}


@pytest.mark.parametrize(
    ("method", "scale", "want"),
    [
        ("sweet", 0.0, [3]),
        ("sweet", 0.5, [3]),
        ("early_exit", 0.0, [1]),
        ("multi_model", 0.0, [1, 1, 1]),
    ],
)
def test_only_sweet_gives_each_segment_a_copy(config, method, scale, want):
    settings = from_config_dict({"method": method, "boundary_gradient_scale": scale})
    members = make_members(settings, 3)
    model = MultiExitClassifier(
        encoder=make_encoder(config, 4, jnp.float32),
        exit_layers=(0, 1, 3),
        exit_numbers=(0, 1, 2),
        num_classes=2,
        features=config.hidden_size,
        settings=settings.exits,
    )
    exits = [member.exits for member in members]
    models = split_model(model, exits, separates_segments(members))
    shapes = [flatten_paths(compute_shapes(part)) for part in models]
    assert [sum(TABLE in path for path in flat) for flat in shapes] == want


@pytest.mark.slow
def test_layers_read_the_copy_of_their_segment(config):
    encoder = make_encoder(config, 4, jnp.float32).clone(table_starts=(0, 2))
    batch = make_example_batch(1, 5)._replace(mask=np.ones((1, 5), np.int32))
    params = encoder.init(jax.random.key(0, impl="rbg"), batch)["params"]

    run = trace_layers(encoder, batch)
    before = run(params)
    table = params["shared_1"]["position_bias"]["embedding"]
    # One number added to all scores of a query would change nothing: tilt the table.
    tilted = table + jnp.arange(32.0)[:, None]
    after = run({**params, "shared_1": {"position_bias": {"embedding": tilted}}})
    moved = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
    assert moved == [False, False, True, True]


def test_equal_copies_are_exported_as_one_and_others_are_refused(tmp_path):
    recorded = load_recorded("mpnet")
    loaded, config = recorded.loaded, recorded.config
    copies = copy_tables(loaded.encoder, 2)
    assert copies.keys() - loaded.encoder.keys() == {"shared_1"}
    export_encoder(copies, loaded.pooler, config, CONFIG, tmp_path / "equal")
    again = flatten_paths(load_encoder(tmp_path / "equal", config, 2).encoder)
    for path, leaf in flatten_paths(loaded.encoder).items():
        np.testing.assert_array_equal(again[path], leaf, err_msg=path)
    table = loaded.encoder["shared_0"]["position_bias"]["embedding"]
    copies["shared_1"] = {"position_bias": {"embedding": table + 1e-6}}
    with pytest.raises(ValueError, match=r"shared_1/position_bias.*method=early_exit"):
        export_encoder(copies, loaded.pooler, config, CONFIG, tmp_path / "drifted")
    assert not (tmp_path / "drifted").exists()


def test_encoders_without_shared_tables_stay_as_they_are():
    encoder = load_recorded("bert").loaded.encoder
    assert copy_tables(encoder, 3) == encoder
    assert join_tables(encoder) == encoder


@pytest.mark.long
def test_a_sweet_run_trains_and_serves_a_table_for_each_segment(
    tiny_config, tiny_mpnet, shared_cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(shared_cache))
    tables = {TABLE: "encoder.relative_attention_bias.weight"}
    check_trained_tables(tiny_config, tiny_mpnet, tmp_path / "run", tables)
