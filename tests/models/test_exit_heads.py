"""An exit alone: what it pools, what it computes, and where its parameters lie."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from sweet_jax.models.exit_heads import (
    Exit,
    Exits,
    norm_paths,
    pool_states,
    pool_texts,
    pooler_paths,
)
from sweet_jax.models.layers import make_norm
from sweet_jax.trees import flatten_paths

WIDTH, CLASSES = 6, 3
FIELDS: dict[str, Any] = {
    "num_classes": CLASSES,
    "features": WIDTH,
    "pooling": "mean",
    "dropout": 0.5,
    "dtype": jnp.float32,
    "init_scale": 0.5,
    "make_norm": lambda: None,
    "learn_to_exit": False,
    "activation": "tanh",
}


@pytest.fixture
def states(rng) -> tuple[jax.Array, jax.Array]:
    """States of three rows, of which the last has no token."""
    x_BLD = rng.normal(size=(3, 5, WIDTH)).astype(np.float32)
    mask_BL = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0] * 5], np.int32)
    return jnp.asarray(x_BLD), jnp.asarray(mask_BL)


def init(module: Any, states: Any, *args: Any) -> Any:
    # This generator compiles in a fraction of the default one's time.
    key = jax.random.key(0, impl="rbg")
    return module.init(key, *args, *states, False)["params"]


def make_exit(states: Any, **fields: Any) -> tuple[Exit, Any]:
    exit_ = Exit(**{**FIELDS, "owns_pooler": True, **fields})
    params = init(exit_, states)
    # Biases and norms are not those of a fresh exit, so that a lost one shows.
    rng = np.random.default_rng(1)
    return exit_, jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape), params)


def make_exits(states: Any, numbers: tuple[int, ...], **fields: Any) -> Any:
    exits = Exits(**{**FIELDS, "numbers": numbers, "shared_pooler": False, **fields})
    key = jax.random.key(0, impl="rbg")

    def run_all(module: Any, *args: Any) -> Any:
        return [module(i, *args, False) for i in range(len(numbers))]

    return exits, exits.init(key, *states, method=run_all)["params"]


def pool_slowly(x_BLD: Any, mask_BL: Any) -> np.ndarray:
    rows = zip(np.asarray(x_BLD), np.asarray(mask_BL), strict=True)
    return np.array([np.sum(x[m > 0], 0) / max(m.sum(), 1) for x, m in rows])


def test_means_are_those_of_real_tokens(states):
    x_BLD, mask_BL = states
    means_BD = pool_states(x_BLD, mask_BL, "mean")
    np.testing.assert_allclose(means_BD, pool_slowly(x_BLD, mask_BL), rtol=1e-6)
    assert not means_BD[2].any()  # A row that fills a batch: 0, not NaN.
    # Whatever stands at other tokens, be it NaN, and so for gradients.
    spoilt_BLD = jnp.where(mask_BL[..., None] > 0, x_BLD, jnp.nan)
    np.testing.assert_array_equal(pool_states(spoilt_BLD, mask_BL, "mean"), means_BD)
    gradient = jax.grad(lambda x: pool_states(x, mask_BL, "mean").sum())(x_BLD)
    expected_BL = mask_BL / np.maximum(mask_BL.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(
        gradient, np.broadcast_to(expected_BL[..., None], x_BLD.shape), rtol=1e-6
    )


def test_the_first_state_is_taken_whatever_the_mask(states):
    x_BLD, mask_BL = states
    np.testing.assert_array_equal(pool_states(x_BLD, mask_BL, "cls"), x_BLD[:, 0])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_states_of_half_precision_are_summed_in_float32(pooling):
    """In bfloat16 a sum of 512 ones would stop at 256."""
    ones_BLD = jnp.ones((1, 512, 2), jnp.bfloat16)
    pooled_BD = pool_states(ones_BLD, jnp.ones((1, 512), jnp.int32), pooling)
    assert pooled_BD.dtype == jnp.float32
    np.testing.assert_array_equal(pooled_BD, 1)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_texts_of_a_packed_row_are_pooled_as_they_are_alone(rng, pooling, dtype):
    """Two texts in row 0, one in row 1; two places are not used."""
    x_BLD = jnp.asarray(rng.normal(size=(2, 400, WIDTH)), dtype)
    bounds = {(0, 0): (0, 300), (0, 1): (300, 390), (1, 0): (0, 7)}
    tokens_BSL = np.zeros((2, 3, 400), bool)
    for (row, place), (start, stop) in bounds.items():
        tokens_BSL[row, place, start:stop] = True
    pooled_ND = pool_texts(x_BLD, jnp.asarray(tokens_BSL), pooling)
    assert pooled_ND.shape == (6, WIDTH)
    assert np.isfinite(pooled_ND).all()
    for (row, place), (start, stop) in bounds.items():
        alone_BLD = x_BLD[row : row + 1, start:stop]
        mask_BL = jnp.ones(alone_BLD.shape[:2], jnp.int32)
        expected_BD = pool_states(alone_BLD, mask_BL, pooling)
        np.testing.assert_allclose(
            pooled_ND[3 * row + place], expected_BD[0], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("activation", "activate"),
    [("tanh", np.tanh), ("gelu", lambda x: x * special.ndtr(x))],
)
@pytest.mark.parametrize("has_norm", [False, True])
def test_an_exit_is_its_formula(states, activation, activate, has_norm):
    make = (lambda: make_norm(1e-5, jnp.float32, None)) if has_norm else lambda: None
    exit_, params = make_exit(
        states, activation=activation, make_norm=make, learn_to_exit=True
    )
    output = exit_.apply({"params": params}, *states, False)
    x_BLD = np.asarray(states[0], np.float64)
    if has_norm:
        x_BLD = (x_BLD - x_BLD.mean(-1, keepdims=True)) / np.sqrt(
            x_BLD.var(-1, keepdims=True) + 1e-5
        )
        x_BLD = x_BLD * params["norm"]["scale"] + params["norm"]["bias"]

    def run_dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ params[name]["kernel"] + params[name]["bias"]

    pooled_BD = activate(run_dense("pooler", pool_slowly(x_BLD, states[1])))
    np.testing.assert_allclose(
        output.logits_BC, run_dense("classifier", pooled_BD), rtol=1e-4, atol=1e-5
    )
    expected_B = special.expit(run_dense("lte", pooled_BD)[:, 0])
    np.testing.assert_allclose(output.lte_B, expected_B, rtol=1e-4)


def test_logits_are_float32_in_half_precision_too(states):
    exit_, params = make_exit(states, dtype=jnp.bfloat16, learn_to_exit=True)
    x_BLD, mask_BL = states
    half = exit_.apply({"params": params}, x_BLD.astype(jnp.bfloat16), mask_BL, False)
    assert half.logits_BC.dtype == half.lte_B.dtype == jnp.float32
    exact = exit_.clone(dtype=jnp.float32).apply({"params": params}, *states, False)
    error_BC = np.abs(half.logits_BC - exact.logits_BC)
    assert 0 < error_BC.max() < 0.05  # Its pooler is of half precision.


def test_dropout_is_on_in_training_only(states):
    exit_, params = make_exit(states)

    def run(train: bool, seed: int) -> np.ndarray:
        rngs = {"dropout": jax.random.key(seed, impl="rbg")}
        output = exit_.apply({"params": params}, *states, train, rngs=rngs)
        return np.asarray(output.logits_BC)

    np.testing.assert_array_equal(run(False, 0), run(False, 1))
    assert (run(True, 0) != run(True, 1)).any()
    assert run(False, 0).std() > 0


def test_a_head_is_there_if_it_is_asked_for(states):
    plain, _ = make_exit(states)
    learns = plain.clone(learn_to_exit=True)
    params, more = init(plain, states), init(learns, states)
    assert more.keys() - params.keys() == {"lte"}
    for path, leaf in flatten_paths(params).items():
        np.testing.assert_array_equal(flatten_paths(more)[path], leaf)
    assert plain.apply({"params": params}, *states, False).lte_B is None
    assert learns.apply({"params": more}, *states, False).lte_B.shape == (3,)


def test_the_head_reads_what_the_classifier_reads(states):
    """A head of the difference of two classes says what their logits say."""
    exit_, params = make_exit(states, learn_to_exit=True)
    params["lte"] = {
        name: (leaf[..., 1:2] - leaf[..., :1]) * 3
        for name, leaf in params["classifier"].items()
    }
    rngs = {"dropout": jax.random.key(0)}
    dropped = exit_.apply({"params": params}, *states, True, rngs=rngs)
    whole = exit_.apply({"params": params}, *states, False)
    for output in (dropped, whole):
        logits_BC = np.asarray(output.logits_BC)
        expected_B = special.expit(3 * (logits_BC[:, 1] - logits_BC[:, 0]))
        np.testing.assert_allclose(output.lte_B, expected_B, rtol=1e-5)
    assert np.abs(dropped.lte_B - whole.lte_B).max() > 1e-4, "dropout was off"


@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("shared_pooler", [False, True])
def test_parameters_lie_where_a_checkpoint_is_put(states, has_norm, shared_pooler):
    numbers = (0, 3)
    make = (lambda: make_norm(1e-5, jnp.float32, None)) if has_norm else lambda: None
    _, params = make_exits(states, numbers, make_norm=make, shared_pooler=shared_pooler)
    flat = flatten_paths({"exits": params})
    modules = {path.rpartition("/")[0] for path in flat}
    classifiers = {f"exits/exit_{i}/classifier" for i in numbers}
    poolers = set(pooler_paths(numbers, shared_pooler))
    norms = set(norm_paths(numbers)) if has_norm else set()
    assert modules == classifiers | poolers | norms
    assert len(poolers) == (1 if shared_pooler else 2)
    for path, leaf in flat.items():
        if path.endswith("kernel"):
            assert 0.25 < leaf.std() < 0.75, path  # Of `init_scale` 0.5.


def test_an_exit_alone_starts_as_it_does_among_others(states):
    """A member of a multi_model keeps its exit's number, and so its first weights."""
    exits, params = make_exits(states, (0, 1, 2))
    alone, own = make_exits(states, (1,))
    assert own.keys() == {"exit_1"}
    for path, leaf in flatten_paths(own).items():
        np.testing.assert_array_equal(flatten_paths(params)[path], leaf)
    np.testing.assert_array_equal(
        alone.apply({"params": own}, 0, *states, False).logits_BC,
        exits.apply({"params": params}, 1, *states, False).logits_BC,
    )


@pytest.mark.parametrize("shared_pooler", [False, True])
def test_an_exit_trains_its_own_pooler_or_that_of_all(states, shared_pooler):
    exits, params = make_exits(states, (0, 1), shared_pooler=shared_pooler)

    def compute(params: Any) -> jax.Array:
        return exits.apply({"params": params}, 0, *states, False).logits_BC.sum()

    gradients = flatten_paths(jax.grad(compute)(params))
    learns = {path.split("/")[0] for path, g in gradients.items() if g.any()}
    assert learns == ({"exit_0", "pooler"} if shared_pooler else {"exit_0"})
