"""The cascade: which exit answers at a threshold, and what that costs and yields.

An example leaves at the first exit whose score is at least the threshold; the last exit
always answers. One pass of the model gives all exits' logits, so every threshold is a
replay: `sweep` takes a grid of thresholds in one jitted call, `exact_curve` takes every
threshold that changes anything, in one sort.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sweet_jax.arrays import Array
from sweet_jax.exits.criteria import FULL
from sweet_jax.settings.fields import METHODS

_ONE_ENCODER = "sum_i n_i (e_i + 1) / (N (e_last + 1))"
# In layers of the encoder; embeddings, poolers and classifiers count as free, as in the
# released code. n_i of the N examples leave at exit i, which reads layer e_i.
COST_FORMULA: dict[str, str] = dict.fromkeys(METHODS, _ONE_ENCODER) | {
    "multi_model": "sum_i n_i sum_{j<=i} (e_j + 1) / (N (e_last + 1))",
}

# Thresholds that `sweep` holds in memory together.
_THRESHOLDS_AT_ONCE = 16


class CascadeStatistics(NamedTuple):
    """Sums over examples at each threshold: all that scores and costs depend on.

    Attributes:
        thresholds: float32, rising; `FULL` runs every exit.
        exit_counts: weight of the examples that leave at each exit.
        correct: weight of the examples answered correctly.
        predicted_counts: weight of the examples answered with each class.
    """

    thresholds: Float[np.ndarray, " T"]
    exit_counts: Float[np.ndarray, "T E"]
    correct: Float[np.ndarray, " T"]
    predicted_counts: Float[np.ndarray, "T C"]


def costs_from_layers(
    method: str, exit_layers: tuple[int, ...]
) -> Float[np.ndarray, " E"]:
    """Returns the cost of leaving at each exit, relative to the full model's layers.

    A multi_model cascade pays for every model it ran, so its last cost is above 1.

    Raises:
        ValueError: the method is unknown.
    """
    if method not in COST_FORMULA:
        raise ValueError(f"method={method!r}: allowed are {', '.join(COST_FORMULA)}")
    layers_run = np.array(exit_layers, np.float64) + 1
    paid = np.cumsum(layers_run) if method == "multi_model" else layers_run
    return paid / layers_run[-1]


def _choose_exits(scores_NE: jax.Array, threshold: jax.Array) -> jax.Array:
    # argmax finds the first True; the last column is True whatever its score.
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
) -> CascadeStatistics:
    """Replays the cascade at each threshold, all in one jitted call.

    Memory grows with N (E + C) and not with T. Sums are float32: exact for weights of
    1 up to 2^24 examples.
    """
    counts_TE, correct_T, predicted_TC = _sweep(
        jnp.asarray(scores_NE, jnp.float32),
        jnp.asarray(thresholds_T, jnp.float32),
        jnp.asarray(predictions_NE),
        jnp.asarray(labels_N),
        jnp.asarray(weights_N, jnp.float32),
        num_classes,
    )
    return CascadeStatistics(
        np.asarray(thresholds_T, np.float32),
        np.asarray(counts_TE, np.float64),
        np.asarray(correct_T, np.float64),
        np.asarray(predicted_TC, np.float64),
    )


@functools.partial(jax.jit, static_argnames="num_classes")
def _sweep(
    scores_NE: jax.Array,
    thresholds_T: jax.Array,
    predictions_NE: jax.Array,
    labels_N: jax.Array,
    weights_N: jax.Array,
    num_classes: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def count(indices_N: jax.Array, length: int) -> jax.Array:
        # A masked sum, fused by XLA, where a scatter would run row by row on CPU.
        hits_NK = indices_N[:, None] == jnp.arange(length)[None, :]
        return jnp.where(hits_NK, weights_N[:, None], 0.0).sum(axis=0)

    def replay(threshold: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        exits_N = _choose_exits(scores_NE, threshold)
        answers_N = jnp.take_along_axis(predictions_NE, exits_N[:, None], axis=1)[:, 0]
        return (
            count(exits_N, scores_NE.shape[1]),
            jnp.where(answers_N == labels_N, weights_N, 0.0).sum(),
            count(answers_N, num_classes),
        )

    return jax.lax.map(replay, thresholds_T, batch_size=_THRESHOLDS_AT_ONCE)


def exact_curve(
    scores_NE: Float[Array, "N E"],
    predictions_NE: Int[Array, "N E"],
    labels_N: Int[np.ndarray, " N"],
    weights_N: Float[np.ndarray, " N"],
    num_classes: int,
    lowest_threshold: float,
) -> CascadeStatistics:
    """Returns the cascade at every threshold that changes it, in O(N E log(N E)).

    An example passes exit i exactly when the threshold exceeds the best of its scores
    up to exit i. Sorting these N (E - 1) events and accumulating what each changes
    gives the sums at every distinct value; the cascade is the same at any threshold
    between two of them as at the upper one.

    Args:
        scores_NE: scores of a criterion.
        predictions_NE: the class each exit answers.
        labels_N: class indices.
        weights_N: weight of each example.
        num_classes: the number of classes C.
        lowest_threshold: the criterion's lowest, at most any score. Chosen on these
            examples it leaves at exit 0 on any others, as their lowest score may not.

    Returns:
        Statistics at `lowest_threshold`, at the distinct best scores, and at `FULL`.
    """
    predictions_NE = np.asarray(predictions_NE)
    num_exits = predictions_NE.shape[1]
    # The last exit always answers, so its score never matters.
    best_NE = np.maximum.accumulate(np.asarray(scores_NE, np.float32)[:, :-1], axis=1)
    values_K, events = np.unique(
        np.append(np.float32(lowest_threshold), best_NE), return_inverse=True
    )
    events, num_values = events[1:], len(values_K)

    def accumulate(contributions_NE: np.ndarray) -> np.ndarray:
        """Returns the sums over the exits that answer, at each value and at FULL."""
        changes_NE = np.diff(contributions_NE, axis=1)
        changes_K = np.bincount(events, changes_NE.ravel(), num_values)
        # Exclusive: at a threshold equal to its score an example does not pass yet.
        return contributions_NE[:, 0].sum() + np.append(0.0, np.cumsum(changes_K))

    weights_N1 = np.asarray(weights_N, np.float64)[:, None]
    exits_NE = np.broadcast_to(np.arange(num_exits), predictions_NE.shape)
    return CascadeStatistics(
        np.append(values_K, np.float32(FULL)),
        np.stack(
            [accumulate(weights_N1 * (exits_NE == i)) for i in range(num_exits)], axis=1
        ),
        accumulate(weights_N1 * (predictions_NE == labels_N[:, None])),
        np.stack(
            [
                accumulate(weights_N1 * (predictions_NE == c))
                for c in range(num_classes)
            ],
            axis=1,
        ),
    )
