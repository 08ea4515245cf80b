"""Criteria of other packages: what is refused when one is registered, and why."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sweet_jax.exits.criteria import CRITERIA, Criterion, register_criterion
from sweet_jax.exits.criterion_checks import check_criterion
from sweet_jax.settings import registries


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("name", registries.BUILTIN_CRITERIA)
def test_our_criteria_pass_the_check_of_others(name):
    row = CRITERIA.lookup(name)
    register_criterion(
        f"same_{name}",
        row.scores_fn,
        score_range=row.range_fn,
        counts=row.counts,
        reads_lte=row.reads_lte,
    )


def _softmax(logits_NEC):
    return jax.nn.softmax(logits_NEC)


# What is wrong -> (scores, options, what the line says).
_WRONG = {
    "reads the exit after it": (
        lambda x: jnp.roll(_softmax(x).max(-1), -1, axis=1),
        {},
        "is not causal: exit 0's",
    ),
    "divides by all exits": (
        lambda x: _softmax(x).max(-1) / _softmax(x).max((1, 2))[:, None],
        {},
        "is not causal",
    ),
    "divides by other rows": (
        lambda x: _softmax(x).max(-1) / _softmax(x).max((0, 2))[None],
        {},
        "is not a function of each row alone",
    ),
    "leaves its range": (lambda x: 2 * _softmax(x).max(-1), {}, "outside of its range"),
    "is NaN on saturated logits": (
        lambda x: (_softmax(x) * jnp.log(_softmax(x))).sum(-1),
        {"score_range": (-2.0, 0.0)},
        "not finite",
    ),
    "is NaN on equal logits": (
        lambda x: x.std(-1) / x.std(-1),
        {},
        "not finite",
    ),
    "has a column too few": (lambda x: _softmax(x).max(-1)[:, 1:], {}, "of shape"),
    "keeps the classes": (_softmax, {}, r"of shape \(32, 4, 3\)"),
    "has complex scores": (lambda x: x.max(-1) + 1j, {}, "complex"),
    "is written for numpy": (lambda x: np.asarray(x).max(-1), {}, "use jax.numpy"),
    "branches on values": (
        lambda x: x.max(-1) if x.sum() > 0 else x.min(-1),
        {},
        "without Python's if",
    ),
    "takes other arguments": (lambda: 1, {}, r"fails \(TypeError.*must take an array"),
    "counts in halves": (
        lambda x: jnp.full(x.shape[:2], 0.5),
        {"counts": True},
        "drop counts=True",
    ),
    "has a range the wrong way round": (
        lambda x: _softmax(x).max(-1),
        {"score_range": (1.0, 0.0)},
        "score range 1 to 0",
    ),
    "has an infinite range": (
        lambda x: _softmax(x).max(-1),
        {"score_range": (0.0, float("inf"))},
        "range 0 to inf",
    ),
    "compares three classes": (
        lambda x: 1 - jax.lax.top_k(_softmax(x), 3)[0][..., 2],
        {},
        r"fails .* with 2 classes and 1 exits",
    ),
    "reads what later exits say of themselves": (
        lambda x, lte: jnp.roll(lte, -1, axis=1),
        {"reads_lte": True},
        "is not causal: exit 0's",
    ),
    "compares rows by what exits say of themselves": (
        lambda x, lte: lte / lte.max(0)[None],
        {"reads_lte": True},
        "is not a function of each row alone",
    ),
    "has a range of one number": (
        lambda x: _softmax(x).max(-1),
        {"score_range": lambda classes, exits: 1},
        "has no score range",
    ),
}


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("wrong", _WRONG)
def test_what_is_no_criterion_is_refused_in_one_line(wrong):
    scores_fn, options, message = _WRONG[wrong]
    with pytest.raises(ValueError, match=message) as error:
        register_criterion("mine", scores_fn, **options)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("criterion 'mine' ")
    assert "mine" not in CRITERIA


@pytest.mark.usefixtures("registries")
def test_a_value_that_is_no_criterion_is_refused():
    with pytest.raises(ValueError, match=r"is a module: make it with .*register_crit"):
        CRITERIA.register("mine", math)  # as an entry point may name a module


def _fail(logits_NEC):
    raise RuntimeError("x" * 10_000 + "\n\n  Traceback of somebody else")


@pytest.mark.parametrize(
    ("scores_fn", "score_range"),
    [(_fail, (0.0, 1.0)), (lambda x: _softmax(x).max(-1), lambda *_: _fail(0))],
)
def test_an_error_of_other_code_stays_short(scores_fn, score_range):
    with pytest.raises(ValueError, match=r"\(RuntimeError: x{200}\) with") as error:
        register_criterion("mine", scores_fn, score_range=score_range)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_what_rounding_does_is_no_fault():
    """Beyond its range by a sum's rounding, or changed by it with other rows."""
    row = Criterion(
        lambda x: _softmax(x).max(-1) + 1e-5 * jnp.tanh(x.sum()), lambda *_: (1e-5, 1)
    )
    check_criterion("mine", row)
    wrong = row._replace(
        scores_fn=lambda x: _softmax(x).max(-1) + 1e-2 * jnp.tanh(x.sum())
    )
    with pytest.raises(ValueError, match="criterion 'mine' "):
        check_criterion("mine", wrong)
