"""Gradient conflict: how the gradients of different exits differ on shared weights.

The paper's diagnosis of joint training (section 3): the gradients of later exits point
in similar directions, but the gradient of the nearest exit points in another direction.
Cosines, ratios and norms follow from the inner products of the exits' gradients. Inner
products add up over parameters, so only they leave the device.

The gradients are those of training: losses weighted by the objective, its seams, its
trainable parameters, dropout on. All exits of one pass use the same dropout masks, as
in a train step. Two departures from a train step: a batch is never split, whatever
`train.accumulate_steps` is, and gradients are not clipped.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Float64, PRNGKeyArray

from sweet_jax.analysis.parameter_groups import Group, Part
from sweet_jax.arrays import Array, Batch, Params
from sweet_jax.training.losses import compute_objective_losses, weigh_rows
from sweet_jax.training.objectives import Objective
from sweet_jax.trees import flatten_paths, make_mask, unflatten_paths

# Per exit, the gradients of the parameters that it reaches, by path.
ExitGradients = tuple[dict[str, Any], ...]


class BatchProducts(NamedTuple):
    """The result for one batch.

    Attributes:
        sums: the exits' gradients, summed over the batches so far.
        products_PEE: inner products of this batch's gradients, for each part.
    """

    sums: ExitGradients
    products_PEE: Float[Array, "P E E"]


@dataclasses.dataclass(frozen=True)
class Products:
    """Inner products of exits' gradients, parts by exits by exits.

    Attributes:
        batches: inner products per batch: <g_i, g_j> of batch n is at [n, :, i, j].
        mean: inner products of the mean gradients over batches.
    """

    batches: Float64[np.ndarray, "N P E E"]
    mean: Float64[np.ndarray, "P E E"]


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Cosines and norms of the exits' gradients on one group of parameters.

    An entry is None if a gradient is 0 or not finite, since it has no direction.

    Attributes:
        exits: the exits that reach the group.
        pairs: pairs (i, j) of these exits with i < j.
        cosine: per pair, mean over batches of the cosine, as it occurs within a step.
        cosine_error: standard error of that mean; None for a single batch.
        cosine_of_mean: per pair, cosine of the mean gradients; averaging over batches
            first reduces their noise. For pure noise, `norm_of_mean` is `norm` /
            sqrt(batches).
        norm_ratio: per pair, geometric mean over batches of |g_j| / |g_i|.
        norm: per exit, mean over batches of |g_i|.
        norm_of_mean: per exit, norm of the mean gradient.
    """

    exits: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    cosine: tuple[float | None, ...]
    cosine_error: tuple[float | None, ...]
    cosine_of_mean: tuple[float | None, ...]
    norm_ratio: tuple[float | None, ...]
    norm: tuple[float | None, ...]
    norm_of_mean: tuple[float | None, ...]


def make_zero_sums(
    params: Params, parts: Sequence[Part], num_exits: int, trainable: tuple[str, ...]
) -> ExitGradients:
    """Returns zeros for the gradients of each exit.

    An exit has gradients for the trainable parameters in segments up to its own.
    """
    flat, learns = (
        flatten_paths(params),
        flatten_paths(make_mask(params, trainable)),
    )
    return tuple(
        {
            path: jnp.zeros_like(flat[path])
            for part in parts
            if part.segment <= exit_number
            for path in part.paths
            if learns[path]
        }
        for exit_number in range(num_exits)
    )


def make_add_batch(
    model: nn.Module,
    objective: Objective,
    parts: Sequence[Part],
    class_weights: tuple[float, ...] | None = None,
) -> Callable[[ExitGradients, Params, Batch, PRNGKeyArray], BatchProducts]:
    """Returns the pure function of one batch, not yet jitted.

    It makes one linearised forward pass, and one backward pass per exit, which runs
    only through the layers below that exit. A pullback of the tuple of losses would
    carry the zeros of later exits through all layers: 1.3 times the FLOPs with 6 layers
    and exits 0, 1, 3, 5.

    Memory: per exit, one gradient of the shared weights that it reaches, and their
        sums.

    Args:
        model: a MultiExitClassifier.
        objective: the objective of the step, static.
        parts: parts of the model's parameters.
        class_weights: those of the train step.
    """

    def add_batch(
        sums: ExitGradients, params: Params, batch: Batch, rng: PRNGKeyArray
    ) -> BatchProducts:
        flat = flatten_paths(params)

        def compute_losses(shared: dict[str, Any]) -> tuple[Array, ...]:
            outputs = model.apply(
                {"params": unflatten_paths({**flat, **shared})},
                batch,
                train=True,
                seam_scale=objective.seam_scale,
                state_scale=objective.state_scale,
                rngs={"dropout": rng},
            )
            losses = compute_objective_losses(
                outputs,  # type: ignore[arg-type]
                batch.labels,
                weigh_rows(batch.labels, batch.weights, class_weights),
                objective,
            )
            total_weight = jnp.maximum(batch.weights.sum(), 1)
            return tuple(
                jnp.asarray(scale * loss / total_weight)
                for scale, loss in zip(objective.exit_scale, losses, strict=True)
            )

        # The last exit reaches the parameters of all other exits.
        shared = {path: flat[path] for path in sums[-1]}
        _, push_forward = jax.linearize(compute_losses, shared)

        def pull_back(j: int) -> dict[str, Any]:
            # Transposing a single output omits the layers above its exit.
            transpose = jax.linear_transpose(lambda t: push_forward(t)[j], shared)
            (gradient,) = transpose(jnp.ones((), jnp.float32))
            return {path: gradient[path] for path in sums[j]}

        gradients = tuple(pull_back(j) for j in range(len(sums)))
        return BatchProducts(
            jax.tree.map(jnp.add, sums, gradients), compute_products(gradients, parts)
        )

    return add_batch


def compute_products(
    gradients: ExitGradients, parts: Sequence[Part]
) -> Float[Array, "P E E"]:
    """Returns the inner products of the gradients of all pairs of exits on each part.

    A parameter for which one of the two has no gradient adds exactly 0.
    """

    def compute_product(part: Part, i: int, j: int) -> jax.Array:
        # Sums of products, because a matrix product would round to TF32 on GPUs.
        terms = [
            (gradients[i][path] * gradients[j][path]).sum()
            for path in part.paths
            if path in gradients[i] and path in gradients[j]
        ]
        return jnp.asarray(sum(terms), jnp.float32)

    def compute_matrix(part: Part) -> jax.Array:
        exits = range(len(gradients))
        upper = {(i, j): compute_product(part, i, j) for i in exits for j in exits[i:]}
        rows = [jnp.stack([upper[min(i, j), max(i, j)] for j in exits]) for i in exits]
        return jnp.stack(rows)

    return jnp.stack([compute_matrix(part) for part in parts])


def collect_products(
    add_batch: Callable[..., BatchProducts],
    sums: ExitGradients,
    params: Params,
    batches: Iterable[tuple[Batch, PRNGKeyArray]],
    parts: Sequence[Part],
) -> Products:
    """Runs the batches; returns their inner products in float64 on the host.

    Args:
        add_batch: result of `make_add_batch`, compiled; it may donate the sums.
        sums: zeros.
        params: parameters at which gradients are computed.
        batches: at least one batch, each with its dropout key.
        parts: parts of the parameters.
    """
    found = []
    for batch, rng in batches:
        sums, products_PEE = add_batch(sums, params, batch, rng)
        found.append(products_PEE)
    mean_PEE = jax.jit(compute_products, static_argnums=1)(sums, tuple(parts))
    return Products(
        np.stack(jax.device_get(found)).astype(np.float64),
        np.asarray(jax.device_get(mean_PEE), np.float64) / len(found) ** 2,
    )


def summarize(products: Products, group: Group) -> Conflict:
    """Returns the cosines, ratios and norms on a group of parts, concatenated."""
    members = list(group.members)
    dots_NEE = products.batches[:, members].sum(axis=1)
    mean_EE = products.mean[members].sum(axis=0)
    exits = tuple(range(group.segment, dots_NEE.shape[1]))
    pairs = tuple((i, j) for i in exits for j in exits if i < j)
    norms_NE = _compute_norms(dots_NEE)
    cosines = [_compute_cosines(dots_NEE, i, j) for i, j in pairs]
    return Conflict(
        exits=exits,
        pairs=pairs,
        cosine=tuple(_keep_finite(c.mean()) for c in cosines),
        cosine_error=tuple(_compute_error(c) for c in cosines),
        cosine_of_mean=tuple(
            _keep_finite(_compute_cosines(mean_EE[None], i, j)[0]) for i, j in pairs
        ),
        norm_ratio=tuple(
            _keep_finite(_compute_ratio(norms_NE[:, i], norms_NE[:, j]))
            for i, j in pairs
        ),
        norm=tuple(_keep_finite(norms_NE[:, i].mean()) for i in exits),
        norm_of_mean=tuple(
            _keep_finite(_compute_norms(mean_EE[None])[0, i]) for i in exits
        ),
    )


def _compute_norms(dots_NEE: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("nee->ne", dots_NEE))


def _compute_cosines(dots_NEE: np.ndarray, i: int, j: int) -> np.ndarray:
    """Returns a cosine per batch, NaN where a gradient is 0."""
    norms_NE = _compute_norms(dots_NEE)
    lengths_N = norms_NE[:, i] * norms_NE[:, j]
    cosines_N = np.full(len(dots_NEE), np.nan)
    np.divide(dots_NEE[:, i, j], lengths_N, out=cosines_N, where=lengths_N > 0)
    # Rounding may give parallel gradients a cosine slightly above 1.
    return np.clip(cosines_N, -1, 1)


def _compute_ratio(norms_N: np.ndarray, others_N: np.ndarray) -> float:
    """Returns the geometric mean of others / norms, NaN if one of them is 0."""
    if not (norms_N > 0).all() or not (others_N > 0).all():
        return math.nan
    return float(np.exp(np.mean(np.log(others_N) - np.log(norms_N))))


def _compute_error(cosines_N: np.ndarray) -> float | None:
    if len(cosines_N) < 2:
        return None
    return _keep_finite(cosines_N.std(ddof=1) / math.sqrt(len(cosines_N)))


def _keep_finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
