"""The cascade: the exit of each example at a threshold, with its cost and score.

An example leaves at the first exit whose score is at least the threshold; the last exit
always answers. One pass of the model gives all exits' logits, so thresholds are
replayed on stored logits: `sweep` evaluates a grid of thresholds in one jitted call,
`exact_curve` every threshold that changes an exit, with one sort.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sweet_jax.arrays import Array
from sweet_jax.exits.criteria import FULL

# In layers of the encoder; embeddings, poolers and classifiers are not counted, as in
# the released code. n_i of the N examples leave at exit i, which reads layer e_i.
_COST_OF_ONE_MODEL = "sum_i n_i (e_i + 1) / (N (e_last + 1))"
_COST_OF_SEPARATE_MODELS = "sum_i n_i sum_{j<=i} (e_j + 1) / (N (e_last + 1))"

# Number of thresholds that `sweep` holds in memory at once.
_THRESHOLDS_AT_ONCE = 16


class CascadeStatistics(NamedTuple):
    """Sums over examples at each threshold; scores and costs depend on these only.

    Attributes:
        thresholds: float32, ascending; `FULL` runs every exit.
        exit_counts: total weight of the examples that leave at each exit.
        correct: total weight of the correct predictions.
        predicted_counts: total weight of the predictions of each class.
        hits: total weight of the correct predictions of each class; None: not computed.
    """

    thresholds: Float[np.ndarray, " T"]
    exit_counts: Float[np.ndarray, "T E"]
    correct: Float[np.ndarray, " T"]
    predicted_counts: Float[np.ndarray, "T C"]
    hits: Float[np.ndarray, "T C"] | None = None


def costs_from_layers(
    exit_layers: tuple[int, ...], separate_models: bool = False
) -> Float[np.ndarray, " E"]:
    """Returns the cost of leaving at each exit, relative to the full model's layers.

    Args:
        exit_layers: the layer each exit reads.
        separate_models: True if each exit has its own model (multi_model). A cascade
            then pays for every model it ran, so its last cost is above 1.
    """
    layers_run = np.array(exit_layers, np.float64) + 1
    paid = np.cumsum(layers_run) if separate_models else layers_run
    return paid / layers_run[-1]


def describe_cost(separate_models: bool) -> str:
    """Returns the formula of a cascade's cost fraction, for the results."""
    return _COST_OF_SEPARATE_MODELS if separate_models else _COST_OF_ONE_MODEL


def _choose_exits(scores_NE: jax.Array, threshold: jax.Array) -> jax.Array:
    # argmax finds the first True; the last column is always True.
    reached_NE = (scores_NE >= threshold).at[:, -1].set(True)
    return jnp.argmax(reached_NE, axis=1)


@jax.jit
def choose_exits(
    scores_NE: Float[Array, "N E"], thresholds_T: Float[Array, " T"]
) -> Int[jax.Array, "T N"]:
    """Returns the exit at which each example leaves, at each threshold."""
    return jax.vmap(_choose_exits, in_axes=(None, 0))(
        jnp.asarray(scores_NE, jnp.float32), jnp.asarray(thresholds_T, jnp.float32)
    )


def sweep(
    scores_NE: Float[Array, "N E"],
    thresholds_T: Float[np.ndarray, " T"],
    predictions_NE: Int[Array, "N E"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"],
    num_classes: int,
    with_hits: bool = False,
) -> CascadeStatistics:
    """Replays the cascade at each threshold, all in one jitted call.

    Memory grows with N (E + C) and not with T. Sums are float32: exact for weights of
    1 up to 2^24 examples.
    """
    counts_TE, correct_T, predicted_TC, hits_TC = _sweep(
        jnp.asarray(scores_NE, jnp.float32),
        jnp.asarray(thresholds_T, jnp.float32),
        jnp.asarray(predictions_NE),
        jnp.asarray(labels_N),
        jnp.asarray(weights_N, jnp.float32),
        num_classes,
        with_hits,
    )
    return CascadeStatistics(
        np.asarray(thresholds_T, np.float32),
        np.asarray(counts_TE, np.float64),
        np.asarray(correct_T, np.float64),
        np.asarray(predicted_TC, np.float64),
        None if hits_TC is None else np.asarray(hits_TC, np.float64),
    )


@functools.partial(jax.jit, static_argnames=("num_classes", "with_hits"))
def _sweep(
    scores_NE: jax.Array,
    thresholds_T: jax.Array,
    predictions_NE: jax.Array,
    labels_N: jax.Array,
    weights_N: jax.Array,
    num_classes: int,
    with_hits: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    def count(indices_N: jax.Array, length: int, weights_N: jax.Array) -> jax.Array:
        # A masked sum, which XLA fuses; a scatter would run row by row on CPU.
        is_at_NK = indices_N[:, None] == jnp.arange(length)[None, :]
        return jnp.where(is_at_NK, weights_N[:, None], 0.0).sum(axis=0)

    def replay(threshold: jax.Array) -> tuple[jax.Array | None, ...]:
        exits_N = _choose_exits(scores_NE, threshold)
        answers_N = jnp.take_along_axis(predictions_NE, exits_N[:, None], axis=1)[:, 0]
        right_N = jnp.where(answers_N == labels_N, weights_N, 0.0)
        return (
            count(exits_N, scores_NE.shape[1], weights_N),
            right_N.sum(),
            count(answers_N, num_classes, weights_N),
            count(labels_N, num_classes, right_N) if with_hits else None,
        )

    return jax.lax.map(replay, thresholds_T, batch_size=_THRESHOLDS_AT_ONCE)


def exact_curve(
    scores_NE: Float[Array, "N E"],
    predictions_NE: Int[Array, "N E"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"],
    num_classes: int,
    lowest_threshold: float,
    with_hits: bool = False,
) -> CascadeStatistics:
    """Returns the cascade at every threshold that changes it, in O(N E log(N E)).

    An example continues past exit i if and only if the threshold exceeds the maximum of
    its scores up to exit i. Sorting these N (E - 1) events and accumulating their
    changes gives the sums at every distinct value; between two values, the cascade is
    the same as at the upper one.

    Args:
        scores_NE: scores of a criterion.
        predictions_NE: the class that each exit predicts.
        labels_N: class indices.
        weights_N: weight of each example.
        num_classes: the number of classes C.
        lowest_threshold: the criterion's lowest, at most any score. With it, all other
            examples leave at exit 0, too; the lowest score here does not ensure that.
        with_hits: whether to compute `hits`.

    Returns:
        Statistics at `lowest_threshold`, at the distinct best scores, and at `FULL`.
    """
    predictions_NE = np.asarray(predictions_NE)
    num_exits = predictions_NE.shape[1]
    # The last exit always answers, so its score is not used.
    best_NE = np.maximum.accumulate(np.asarray(scores_NE, np.float32)[:, :-1], axis=1)
    values_K, events = np.unique(
        np.append(np.float32(lowest_threshold), best_NE), return_inverse=True
    )
    events, num_values = events[1:], len(values_K)

    def accumulate(contributions_NE: np.ndarray) -> np.ndarray:
        """Returns the sums over the examples' exits, at each value and at FULL."""
        changes_NE = np.diff(contributions_NE, axis=1)
        changes_K = np.bincount(events, changes_NE.ravel(), num_values)
        # Exclusive: at a threshold equal to its score an example still leaves.
        return contributions_NE[:, 0].sum() + np.append(0.0, np.cumsum(changes_K))

    weights_N1 = np.asarray(weights_N, np.float64)[:, None]
    exits_NE = np.broadcast_to(np.arange(num_exits), predictions_NE.shape)
    right_NE = predictions_NE == labels_N[:, None]

    def accumulate_each(is_in: Callable[[int], np.ndarray], number: int) -> np.ndarray:
        columns = [accumulate(weights_N1 * is_in(i)) for i in range(number)]
        return np.stack(columns, axis=1)

    return CascadeStatistics(
        np.append(values_K, np.float32(FULL)),
        accumulate_each(lambda i: exits_NE == i, num_exits),
        accumulate(weights_N1 * right_NE),
        accumulate_each(lambda c: predictions_NE == c, num_classes),
        accumulate_each(lambda c: right_NE & (predictions_NE == c), num_classes)
        if with_hits
        else None,
    )
