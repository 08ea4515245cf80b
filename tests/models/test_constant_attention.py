"""Attention by constants: probabilities, gates, and layers without queries and keys."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_configs import TINY_CONFIGS

from sweet_jax.arrays import Params
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.attention import compute_context
from sweet_jax.models.constant_attention import (
    ConstantHeads,
    compute_constant_context,
    compute_constant_probabilities,
    insert_constants,
    mix_attention,
    place_constants,
)
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.init import make_example_batch
from sweet_jax.models.masked_softmax import compute_masked_softmax

# Real tokens need not come first, and the last row has none.
_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 1], [0, 1, 0, 1, 0], [0] * 5], bool)


def _make_constants(rng, heads: int = 2, length: int = 5) -> np.ndarray:
    return rng.uniform(0, 1, (heads, length, length)).astype(np.float32)


@pytest.mark.parametrize("reach", [None, 1])
@pytest.mark.parametrize("longest", [5, 7])
def test_constants_are_renormalised_over_pairs_of_real_tokens(rng, reach, longest):
    constants = _make_constants(rng, length=longest)
    mask = _MASK[:, None, None, :]
    if reach is not None:
        near = np.abs(np.arange(5)[:, None] - np.arange(5)) <= reach
        mask = mask & near[None, None]
    got = compute_constant_probabilities(jnp.asarray(constants), jnp.asarray(mask))
    assert got.shape == (4, 2, 5, 5)
    assert got.dtype == jnp.float32
    for b, h, i in np.ndindex(4, 2, 5):
        keys = np.array(
            [
                _MASK[b, i] & _MASK[b, j] & (reach is None or abs(i - j) <= reach)
                for j in range(5)
            ]
        )
        want = np.where(keys, constants[h, i, :5], 0).astype(np.float64)
        want = want / want.sum() if keys.any() else want
        np.testing.assert_allclose(got[b, h, i], want, atol=1e-6)


@pytest.mark.parametrize("longest", [5, 7])
def test_the_context_without_probabilities_is_theirs(rng, longest):
    constants = jnp.asarray(_make_constants(rng, length=longest))
    values = rng.normal(size=(4, 5, 2, 3)).astype(np.float32)
    mask = jnp.asarray(_MASK)
    probabilities = compute_constant_probabilities(constants, mask[:, None, None])
    want = compute_context(probabilities, jnp.asarray(values))
    values[~_MASK] = np.nan
    got = compute_constant_context(constants, mask, jnp.asarray(values))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_query_without_any_weight_reads_nothing():
    mask = jnp.ones((1, 1, 1, 3), bool)
    got = compute_constant_probabilities(jnp.zeros((1, 3, 3)), mask)
    np.testing.assert_array_equal(got, np.zeros((1, 1, 3, 3)))


def test_inputs_longer_than_the_constants_are_refused():
    mask = jnp.ones((1, 1, 1, 6), bool)
    with pytest.raises(ValueError, match=r"6 tokens .* 5 positions: lower data\.max"):
        compute_constant_probabilities(jnp.zeros((1, 5, 5)), mask)


def test_gates_mix_each_head(rng):
    constants = jnp.asarray(_make_constants(rng, heads=3))
    mask = jnp.asarray(_MASK[:, None, None, :])
    scores = jnp.asarray(rng.normal(size=(4, 3, 5, 5)), jnp.float32)
    own = compute_masked_softmax(scores, mask)
    constant = compute_constant_probabilities(constants, mask)

    @jax.jit
    def mix(gates_H):
        return mix_attention(gates_H, constants)(scores, mask)

    # 40 and -40 are gates before their sigmoid that no training reaches.
    for gates in ([1.0, 0.25, 0.0], jax.nn.sigmoid(jnp.array([40.0, -1.0, -40.0]))):
        g = jnp.asarray(gates)[None, :, None, None]
        np.testing.assert_allclose(
            mix(jnp.asarray(gates)), g * own + (1 - g) * constant, atol=3e-7
        )
    # Sets of heads are a batch axis.
    sets = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    both = jax.vmap(mix)(sets)
    for i in range(2):
        np.testing.assert_allclose(both[i], mix(sets[i]), atol=3e-7)


def test_heads_must_be_numbers_of_the_layer():
    assert ConstantHeads((0, 3), 8).find_others(4) == (1, 2)
    for heads in ((0, 4), (3, 0), (1, 1), (-1,)):
        with pytest.raises(ValueError, match=r"increasing numbers .* 0 to 3"):
            ConstantHeads(heads, 8).find_others(4)


# Two layers of four heads: the first is all constant, and two heads of the second,
# which is local in ModernBERT. Constants are longer than the inputs.
_HEADS = ((0, 1, 2, 3), (0, 2))
_FAMILIES = {
    name: {**it, "num_attention_heads": 4} for name, it in TINY_CONFIGS.items()
}
_FAMILIES["deberta-v3"] = {
    **_FAMILIES["deberta-v2"],
    "share_att_key": False,
    "conv_kernel_size": 0,
}
_ROWS, _TOKENS, _POSITIONS, _WIDTH = 4, 6, 8, 16


@dataclasses.dataclass(frozen=True)
class _Family:
    """An encoder of two layers, its parameters, and compiled programs.

    A program maps params, input states and mask to the output states and what the
    attention of layer 0 adds to its input.
    """

    encoder: Encoder
    plain: Params
    params: Params
    run_plain: Any
    run_constant: Any

    def compile(self, encoder: Encoder, params: Params) -> Any:
        shapes = jnp.zeros((_ROWS, _TOKENS, _WIDTH)), jnp.ones((_ROWS, _TOKENS), int)
        run = functools.partial(_run, encoder)
        return jax.jit(run).lower(params, *shapes).compile()


def _run(
    encoder: Encoder, params: Params, x_BLD: jax.Array, mask_BL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    carry = {"x_BLD": x_BLD, "mask_BL": mask_BL, "shared": ()}
    out, state = encoder.apply(
        {"params": params},
        *(carry, 0, 2, False),
        method="run_layers",
        capture_intermediates=lambda module, _: module.name == "output",
    )
    attention: Any = state["intermediates"]["layer_0"]["attention"]
    return out["x_BLD"], attention["output"]["__call__"][0]


# RoBERTa's encoder is BERT's.
_slow = {"roberta": pytest.mark.slow}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=_slow.get(name, ())) for name in _FAMILIES],
)
def family(request) -> _Family:
    rng = np.random.default_rng(0)
    plain = make_encoder(parse_config(_FAMILIES[request.param]), 2, jnp.float32)
    encoder = plain.clone(attention_fns=place_constants(_HEADS, _POSITIONS))
    shapes = jax.eval_shape(plain.init, jax.random.key(0), make_example_batch())
    weights = jax.tree.map(
        lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32),
        shapes["params"],
    )
    constants = rng.uniform(0, 1, (2, 4, _POSITIONS, _POSITIONS)).astype(np.float32)
    params = insert_constants(weights, constants, _HEADS)
    made = _Family(encoder, weights, params, None, None)
    return dataclasses.replace(
        made,
        run_plain=made.compile(plain, weights),
        run_constant=made.compile(encoder, params),
    )


def _make_states(rng) -> jax.Array:
    return jnp.asarray(rng.normal(size=(_ROWS, _TOKENS, _WIDTH)), jnp.float32)


_GAPS = jnp.array([[1, 1, 1, 1, 0, 1], [1] * 6, [1, 1, 0, 0, 0, 1], [1, 0, 1, 0, 1, 0]])


def test_parameters_are_those_of_the_ordinary_encoder_and_constants(family):
    batch = make_example_batch()
    shapes = jax.eval_shape(family.encoder.init, jax.random.key(0), batch)["params"]
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, family.params)
    assert family.params["layer_1"]["attention"]["constants"].shape == (2, 8, 8)


def test_constants_of_one_row_used_on_it_change_nothing(family, rng):
    x_BLD, mask_BL = _make_states(rng)[:1], _GAPS[:1]
    seen = []

    def record(probabilities_fn, scores_BHLM, mask):
        seen.append(probabilities_fn(scores_BHLM, mask))
        return seen[-1]

    softmax = functools.partial(record, place_constants([()], 1)[0])
    recorder = family.encoder.clone(attention_fns=(softmax, softmax))

    @jax.jit
    def compute_constants(params):
        seen.clear()
        states, _ = _run(recorder, params, x_BLD, mask_BL)
        return states, jnp.stack([found[0] for found in seen])

    want, constants = compute_constants(family.plain)
    pairs = mask_BL[0][:, None] * mask_BL[0][None, :]
    padded = np.zeros((2, 4, _POSITIONS, _POSITIONS), np.float32)
    padded[..., :_TOKENS, :_TOKENS] = constants * pairs[None, None]
    params = insert_constants(family.plain, padded, _HEADS)
    got, _ = family.run_constant(
        params, x_BLD.repeat(_ROWS, axis=0), mask_BL.repeat(_ROWS, axis=0)
    )
    real = np.asarray(mask_BL[0], bool)
    np.testing.assert_allclose(got[0, real], want[0, real], atol=1e-5)


def test_without_constant_heads_the_encoder_is_the_ordinary_one():
    assert place_constants([(), (1,)], 8) == (
        compute_masked_softmax,
        ConstantHeads((1,), 8),
    )


def _find_unread(name: str, heads: tuple[int, ...]) -> list[int]:
    """Returns the columns that serve only queries and keys of constant heads."""
    each = range(4)  # numbers of a head
    if name == "qkv":
        return [
            _WIDTH * part + 4 * h + k for part in (0, 1) for h in heads for k in each
        ]
    if name == "query_key_value":
        return [12 * h + k for h in heads for k in range(8)]
    if name in ("query", "key", "position_query", "position_key", "query_bias"):
        return [4 * h + k for h in heads for k in each]
    return []


def test_kernels_of_constant_heads_are_not_read(family, rng):
    """NaN in their place changes nothing."""
    x_BLD, broken = _make_states(rng), jax.tree.map(np.array, family.params)
    for i, heads in enumerate(_HEADS):
        attention = broken[f"layer_{i}"]["attention"]
        found = 0
        for name, part in attention.items():
            for leaf in jax.tree.leaves(part):
                columns = _find_unread(name, heads)
                leaf[..., columns] = np.nan
                found += leaf.ndim == 2 and len(columns)
        assert found >= 2 * 4 * len(heads)
    got, _ = family.run_constant(broken, x_BLD, _GAPS)
    want, _ = family.run_constant(family.params, x_BLD, _GAPS)
    np.testing.assert_array_equal(got, want)
    assert np.isfinite(got).all()


def test_columns_of_constant_heads_are_not_multiplied(family):
    """Counted before XLA, which drops some products that nothing reads."""

    def count_columns(encoder: Encoder, params: Params) -> int:
        inputs = jnp.zeros((_ROWS, _TOKENS, _WIDTH)), jnp.ones((_ROWS, _TOKENS), int)
        jaxpr = jax.make_jaxpr(functools.partial(_run, encoder))(params, *inputs)
        return sum(
            eqn.outvars[0].aval.shape[-1]
            for eqn in _list_equations(jaxpr.jaxpr)
            if eqn.primitive.name == "dot_general"
            and eqn.invars[1].aval.ndim == 2
            and eqn.invars[1].aval.shape[0] == _WIDTH
        )

    plain = family.encoder.clone(attention_fns=None)
    saved = count_columns(plain, family.plain)
    saved -= count_columns(family.encoder, family.params)
    # Four columns for queries and keys of six heads, and for distances in DeBERTa.
    maps = 4 if "distance" in family.plain.get("shared_0", {}) else 2
    assert saved == 6 * maps * 4


def _list_equations(jaxpr: Any) -> list[Any]:
    """Returns the equations of a program and of the programs that it calls."""
    inner = [
        equation
        for eqn in jaxpr.eqns
        for value in eqn.params.values()
        if hasattr(value, "jaxpr")
        for equation in _list_equations(value.jaxpr)
    ]
    return [*jaxpr.eqns, *inner]


@pytest.mark.slow
def test_queries_and_keys_of_constant_heads_have_no_gradient(family, rng):
    x_BLD = _make_states(rng)

    def compute_loss(params):
        return (_run(family.encoder, params, x_BLD, _GAPS)[0] ** 3).sum()

    gradient = jax.jit(jax.grad(compute_loss))(family.params)
    for i, heads in enumerate(_HEADS):
        attention = gradient[f"layer_{i}"]["attention"]
        for name, part in attention.items():
            columns = _find_unread(name, heads)
            for leaf in jax.tree.leaves(part):
                flat = np.asarray(leaf).reshape(-1, leaf.shape[-1])
                read = np.delete(flat, columns, axis=1)
                assert (flat[:, columns] == 0).all(), name
                assert not read.size or np.abs(read).max() > 0 or name == "key", name
        assert np.abs(attention["constants"]).max() > 0


def test_states_under_the_mask_change_no_real_token(family, rng):
    x_BLD, other_BLD = _make_states(rng), _make_states(rng)
    real_BL = np.asarray(_GAPS, bool)
    other_BLD = jnp.where(real_BL[..., None], x_BLD, 50 * other_BLD)
    got, _ = family.run_constant(family.params, other_BLD, _GAPS)
    want, _ = family.run_constant(family.params, x_BLD, _GAPS)
    np.testing.assert_array_equal(got[real_BL], want[real_BL])
    assert (got[~real_BL] != want[~real_BL]).any()


def test_constant_attention_is_affine_in_its_input(family, rng):
    x, y = _make_states(rng)[:2]
    inputs = jnp.stack([x + y, x, y, jnp.zeros_like(x)])
    mask_BL = _GAPS[:1].repeat(_ROWS, axis=0)
    _, (both, first, second, none) = family.run_constant(family.params, inputs, mask_BL)
    np.testing.assert_allclose(both - none, first + second - 2 * none, atol=3e-5)
    _, (both, first, second, none) = family.run_plain(family.plain, inputs, mask_BL)
    assert np.abs(both + none - first - second).max() > 0.1


def test_operations_fall_with_constant_heads(family):
    plain, some = (
        run.cost_analysis()["flops"] for run in (family.run_plain, family.run_constant)
    )
    # 16 wide and 6 long, six of eight heads: at least their queries and keys.
    assert plain - some > 6 * 2 * (2 * 4 * _WIDTH * _ROWS * _TOKENS)


@pytest.mark.slow
def test_gates_at_their_ends_are_plain_and_constant_attention(family, rng):
    x_BLD = _make_states(rng)
    constants = jnp.asarray(_make_constants(rng, 4, _POSITIONS))
    everything = np.broadcast_to(constants, (2, *constants.shape))

    @jax.jit
    def run(gates_NH, params):
        fns = tuple(mix_attention(gates_H, constants) for gates_H in gates_NH)
        return _run(family.encoder.clone(attention_fns=fns), params, x_BLD, _GAPS)[0]

    real_BL = np.asarray(_GAPS, bool)
    want, _ = family.run_plain(family.plain, x_BLD, _GAPS)
    got = run(jax.nn.sigmoid(jnp.full((2, 4), 40.0)), family.plain)
    np.testing.assert_allclose(got[real_BL], want[real_BL], atol=1e-5)
    gates = jnp.array([[0.0] * 4, [0.0, 1.0, 0.0, 1.0]])
    params = insert_constants(family.plain, everything, _HEADS)
    want, _ = family.run_constant(params, x_BLD, _GAPS)
    got = run(gates, family.plain)
    np.testing.assert_allclose(got[real_BL], want[real_BL], atol=1e-5)
