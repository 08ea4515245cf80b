"""The probe of section 6: its formula, its size, and that padding is not read."""

import jax
import jax.numpy as jnp
import numpy as np

from sweet_jax.analysis.papa.probe import SentenceProbe
from sweet_jax.trees import count_parameters


def make_inputs(rows=2, states=3, length=5, width=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, states, length, width)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]], np.int32)[:rows]
    return x, mask


def init(probe, x, mask):
    params = probe.init(jax.random.key(0), x, mask, False)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params
    )


def test_the_probe_is_its_formula():
    probe, (x, mask) = SentenceProbe(3, 0.1), make_inputs()
    params = jax.tree.map(np.asarray, init(probe, x, mask))
    g = np.einsum("jl,bl,bjld->bjd", params["slot_weights"], mask, x).reshape(2, -1)
    u = np.tanh(g @ params["dense"]["kernel"] + params["dense"]["bias"])
    expected = u @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    found = probe.apply({"params": params}, x, mask, False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_states_of_padding_change_nothing():
    probe, (x, mask) = SentenceProbe(2, 0.1), make_inputs()
    params = init(probe, x, mask)
    other = x.copy()
    other[0, :, mask[0] == 0] = 1e3
    assert (other != x).any()
    before, after = (
        probe.apply({"params": params}, s, mask, False) for s in (x, other)
    )
    np.testing.assert_array_equal(before, after)


def test_it_starts_from_equal_weights_and_has_the_papers_size():
    probe = SentenceProbe(2, 0.1)
    shapes = jax.eval_shape(
        lambda key: probe.init(
            key, jnp.zeros((1, 13, 64, 768)), jnp.ones((1, 64), jnp.int32), False
        ),
        jax.random.key(0),
    )["params"]
    classifier = shapes.pop("classifier")
    assert count_parameters(shapes) == 7_669_312
    assert count_parameters(classifier) == 768 * 2 + 2
    x, mask = make_inputs()
    params = probe.init(jax.random.key(0), x, mask, False)["params"]
    assert (params["slot_weights"] == np.float32(1 / 5)).all()
