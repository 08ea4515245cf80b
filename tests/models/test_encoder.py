"""Every family: parity with recorded PyTorch outputs and gradients, row by row."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.recording import make_loss_weights
from published import PUBLISHED
from recorded import CASES, RECORDINGS, Recorded, load_recorded

from sweet_jax.arrays import Batch, Params
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.huggingface.name_maps import NAME_MAPS
from sweet_jax.huggingface.safetensors import compute_shapes
from sweet_jax.models.encoder import Encoder
from sweet_jax.trees import flatten_paths, unflatten_paths

pytestmark = pytest.mark.usefixtures("highest_precision")


# Each differs from another family in a table of names or a setting: with -m slow.
VARIANTS = ("roberta", "deberta", "deberta_v2")


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name
        for name in RECORDINGS
    ]
)
def recorded(request) -> Recorded:
    return load_recorded(request.param)


def apply_norm(encoder: Encoder, params: Params, x_BLD: jax.Array) -> jax.Array:
    """Returns the state behind the final norm, in families that have one."""
    norm: Any = encoder.make_final_norm()
    if norm is None:
        return x_BLD
    return norm.apply({"params": params["final_norm"]}, x_BLD)


@functools.cache
def make_runner(name: str, remat: bool = False):
    """Returns a jitted (params, batch) -> last state; compiled once per shape."""
    config = load_recorded(name).config
    encoder = make_encoder(config, config.num_layers, jnp.float32, remat)

    def run(params: Params, batch: Batch) -> jax.Array:
        carry: Any = encoder.apply({"params": params}, batch)
        return apply_norm(encoder, params, carry["x_BLD"])

    return jax.jit(run)


@functools.cache
def run_case(name: str, case: str) -> tuple[list[jax.Array], jax.Array]:
    """Returns every module's output on PyTorch's own input, and the whole encoder's."""
    recorded = load_recorded(name)
    config, batch = recorded.config, recorded.make_batch(case)
    encoder = make_encoder(config, config.num_layers, jnp.float32)

    @jax.jit
    def run(params: Params, states: list[jax.Array]):
        def call(method, *inputs):
            return encoder.apply({"params": params}, *inputs, False, method=method)

        carry = call("embed", batch)
        outputs = [carry["x_BLD"]]
        for i in range(config.num_layers):
            # From the recorded input, so that errors do not add up over modules.
            carry = call("run_layers", {**carry, "x_BLD": states[i]}, i, i + 1)
            outputs.append(carry["x_BLD"])
        outputs.append(apply_norm(encoder, params, states[-1]))
        whole: Any = encoder.apply({"params": params}, batch)
        return outputs, apply_norm(encoder, params, whole["x_BLD"])

    states = [jnp.asarray(x_BLD) for x_BLD in recorded.get_states(case)]
    return run(recorded.get_checkpoint(), states)


def pool(pooler: Params, last_BLD) -> np.ndarray:
    return np.tanh(np.asarray(last_BLD)[:, 0] @ pooler["kernel"] + pooler["bias"])


# PyTorch lets padding read all keys alike, and sets some of its states to zero.
PADDING_READS_ALL = ("deberta", "deberta-v2")


def find_compared(recorded: Recorded, batch: Batch, what: str) -> np.ndarray:
    """Returns [B, L], True at the tokens whose states must equal PyTorch's.

    All of them, but for padding, which nothing reads, where PyTorch treats it otherwise
    than tokens: in some families everywhere, with position offsets in the embeddings
    and what follows from them, as it gives padding a position of its own.

    Args:
        recorded: the recording.
        batch: of the recording.
        what: `layer`, from the same input, or `embeddings`.
    """
    config = recorded.config
    offset = getattr(config, "position_offset", 0)
    otherwise = config.family in PADDING_READS_ALL
    if otherwise or (what == "embeddings" and offset):
        return np.asarray(batch.mask) == 1
    return np.ones(np.shape(batch.mask), bool)


def check_pooled(recorded: Recorded, case: str, last_BLD, atol: float) -> None:
    """Compares the pooled states, in families with a pooler."""
    name, pooler = f"output/{case}/pooler", recorded.loaded.pooler
    assert (pooler is not None) == (name in recorded.arrays)
    if pooler is not None:
        got = pool(pooler, last_BLD)
        np.testing.assert_allclose(got, recorded.arrays[name], rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_each_module_equals_pytorch(recorded, case):
    batch = recorded.make_batch(case)
    want = [*recorded.get_states(case), recorded.get_last(case)]
    got, _ = run_case(recorded.name, case)
    for i in range(len(want)):
        real = find_compared(recorded, batch, "layer" if i else "embeddings")
        np.testing.assert_allclose(got[i][real], want[i][real], rtol=0, atol=1e-5)
    check_pooled(recorded, case, want[-1], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_whole_encoder_equals_pytorch(recorded, case):
    batch = recorded.make_batch(case)
    _, last = run_case(recorded.name, case)
    real = find_compared(recorded, batch, "embeddings")
    want = recorded.get_last(case)
    np.testing.assert_allclose(last[real], want[real], rtol=0, atol=1e-4)
    check_pooled(recorded, case, last, atol=1e-4)


def test_what_stands_at_padding_changes_nothing(recorded):
    batch = recorded.make_batch("pairs")
    real = np.asarray(batch.mask) == 1
    assert not real.all()
    other = batch._replace(token_ids=jnp.where(real, batch.token_ids, 7))
    run = make_runner(recorded.name)
    one, two = (run(recorded.get_checkpoint(), b) for b in (batch, other))
    np.testing.assert_array_equal(one[real], two[real])


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_equal_pytorch(recorded, remat):
    batch = recorded.make_batch("pairs")
    weights = make_loss_weights(np.asarray(batch.mask), recorded.config.hidden_size)
    run = make_runner(recorded.name, remat)

    def compute_loss(params):
        return (run(params, batch) * weights).sum()

    params = {
        name: part
        for name, part in recorded.get_checkpoint().items()
        if name != "pooler"
    }
    got = flatten_paths(jax.jit(jax.grad(compute_loss))(params))
    want = load_gradients(recorded)
    assert got.keys() == want.keys()
    # Softmax does not see what shifts all scores of a query alike: a key bias, or, if
    # positions' queries meet contents' keys, the bias of positions' keys. The true
    # gradient is 0, so "relative" means relative to the query's.
    disentangled = "shared_0/distance/embedding" in want
    unseen = "position_key/bias" if disentangled else "key/bias"
    for path, gradient in want.items():
        scale = np.abs(gradient).max()
        if path.endswith(unseen):
            scale = np.abs(want[path.replace("key/bias", "query/bias")]).max()
        np.testing.assert_allclose(
            got[path], gradient, rtol=0, atol=1e-4 * scale, err_msg=path
        )


def load_gradients(recorded: Recorded) -> dict[str, np.ndarray]:
    """Returns path -> recorded gradient."""
    flat = {}
    for name, array in recorded.arrays.items():
        if name.startswith("gradient/"):
            name_map = NAME_MAPS[recorded.config.family]
            row = name_map.to_ours(name.removeprefix("gradient/"))
            assert row is not None
            path, transform = row
            flat[path] = array.T if transform == "transpose" else array
    return flat


# Recording -> its kernels that hold several maps side by side, and how many.
STACKED: dict[str, dict[str, int]] = {
    **{name: {} for name in RECORDINGS},
    # Query, key and value of each of four heads.
    "deberta": {"layer_1/attention/query_key_value/kernel": 12},
    "modernbert": {
        "layer_1/attention/qkv/kernel": 3,
        "layer_1/feed_forward/up/kernel": 2,
    },
}


def make_mutations() -> list[tuple[str, str, str]]:
    """Returns (recording, path, mutation): every row, in the ways it can go wrong."""
    mutations = []
    for name in RECORDINGS:
        recorded = load_recorded(name)
        flat = flatten_paths(recorded.get_checkpoint())
        for rule in NAME_MAPS[recorded.config.family].rules:
            # A config may leave a row out, of layer 0 or of all others, too.
            paths = (rule.ours.format(layer=i) for i in (1, 0))
            path = next((path for path in paths if path in flat), None)
            if path is None:
                continue
            # A zeroed key bias changes nothing (softmax); the query's instead does.
            wrong = ["swap" if path.endswith("key/bias") else "zero"]
            if path.endswith("scale"):
                wrong.append("one")
            # Kernels that stand for several maps: their parts in another order.
            if path in STACKED[name]:
                wrong.append("roll")
            # Only square kernels: others are refused by their shape.
            elif path.endswith("kernel") and flat[path].shape == flat[path].shape[::-1]:
                wrong.append("transpose")
            if path.endswith("query/kernel"):
                wrong.append("swap")
            mutations.extend((name, path, mutation) for mutation in wrong)
    return mutations


def test_every_row_is_in_a_recording():
    recorded_rows = {family: set() for family in NAME_MAPS}
    for recorded in map(load_recorded, RECORDINGS):
        paths = flatten_paths(recorded.get_checkpoint())
        recorded_rows[recorded.config.family].update(paths)
    # The same table under another name.
    recorded_rows["xlm-roberta"] = recorded_rows["roberta"]
    for family, name_map in NAME_MAPS.items():
        rows = {rule.ours.format(layer=1) for rule in name_map.rules}
        assert rows <= recorded_rows[family]


@pytest.mark.parametrize(("name", "path", "mutation"), make_mutations())
def test_each_row_of_the_table_matters(name, path, mutation):
    recorded = load_recorded(name)
    flat = flatten_paths(recorded.get_checkpoint())
    if mutation == "swap":
        other = path.replace("key", "query") if "key/" in path else None
        other = other or path.replace("query", "key")
        flat[path], flat[other] = flat[other], flat[path]
    elif mutation == "transpose":
        flat[path] = flat[path].T
    elif mutation == "roll":
        width = flat[path].shape[1] // STACKED[name][path]
        flat[path] = np.roll(flat[path], width, axis=1)
    else:
        flat[path] = np.full_like(flat[path], 0.0 if mutation == "zero" else 1.0)
    tree = unflatten_paths(flat)
    batch = recorded.make_batch("pairs")
    encoder = {part: tree[part] for part in tree if part != "pooler"}
    last = make_runner(name)(encoder, batch)
    real = np.asarray(batch.mask) == 1
    off = [np.abs(last - recorded.get_last("pairs"))[real].max()]
    if "pooler" in tree:
        want = recorded.arrays["output/pairs/pooler"]
        off.append(np.abs(pool(tree["pooler"], last) - want).max())
    # A hundred times the tolerance of the comparison.
    assert max(off) > 1e-2


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_their_parameter_counts(name):
    attributes, want = PUBLISHED[name]
    config = parse_config(attributes)
    shapes = compute_shapes(config, config.num_layers)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == want


def test_one_token_more_than_the_position_table_takes_is_refused(recorded):
    config = recorded.config
    assert recorded.arrays["input/position_limit/mask"].shape[1] == config.max_positions
    ids = jnp.ones((1, config.max_positions + 1), jnp.int32)
    batch = recorded.make_batch("one_token")._replace(
        token_ids=ids, type_ids=ids, mask=ids
    )
    encoder = make_encoder(config, 1, jnp.float32)
    with pytest.raises(ValueError, match=r"41 tokens .* 40 positions"):
        jax.eval_shape(encoder.init, jax.random.key(0), batch)


# What else the files of a family hold: heads and buffers.
IGNORED = {
    "bert": (
        *("cls.predictions.bias", "cls.seq_relationship.weight", "classifier.bias"),
        "bert.embeddings.position_ids",
    ),
    "roberta": (
        *("lm_head.dense.weight", "lm_head.bias", "classifier.out_proj.weight"),
        "roberta.embeddings.position_ids",
    ),
    "xlm-roberta": (
        *("lm_head.layer_norm.weight", "classifier.dense.bias"),
        "roberta.embeddings.position_ids",
    ),
    "mpnet": (
        *("lm_head.decoder.bias", "classifier.out_proj.bias"),
        "mpnet.embeddings.position_ids",
    ),
    "modernbert": ("head.dense.weight", "head.norm.weight", "decoder.bias"),
    "deberta": (
        *("lm_predictions.lm_head.dense.weight", "cls.predictions.bias"),
        *("pooler.dense.weight", "deberta.embeddings.position_ids"),
    ),
    "deberta-v2": (
        *("mask_predictions.classifier.weight", "pooler.dense.bias"),
        "deberta.embeddings.position_ids",
    ),
}
# What stands before the names where a model has a task's head, if not the family.
PREFIXES = {
    "xlm-roberta": "roberta",
    "modernbert": "model",
    "deberta-v2": "deberta",
}


@pytest.mark.parametrize("family", IGNORED)
def test_older_files_name_the_same_tensors(family):
    name_map = NAME_MAPS[family]
    prefix = PREFIXES.get(family, family)
    for rule in name_map.rules:
        theirs, ours = rule.theirs.format(layer=11), rule.ours.format(layer=11)
        assert name_map.to_ours(theirs) == (ours, rule.transform)
        assert name_map.to_theirs(ours) == (theirs, rule.transform)
        old = f"{prefix}.{theirs}".replace("Norm.weight", "Norm.gamma")
        old = old.replace("Norm.bias", "Norm.beta")
        assert name_map.to_ours(name_map.rename(old)) == (ours, rule.transform)
    for name in IGNORED[family]:
        current = name_map.rename(name)
        assert name_map.is_ignored(current)
        assert name_map.to_ours(current) is None
