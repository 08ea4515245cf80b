"""Which heads become constant: an order of all heads, and its first k (section 5)."""

import numpy as np
from jaxtyping import Bool, Float, Int

# docs/papa.md says what each means.
RANKINGS = ("gates", "random", "distance", "entropy", "bottom", "top")


def sort_heads(scores_IH: Float[np.ndarray, "I H"]) -> Int[np.ndarray, " P"]:
    """Returns the heads, numbered layer by layer, from the lowest score on.

    Equal scores keep the order of layers and heads; the released code's sort breaks
    ties in any way.
    """
    return np.argsort(scores_IH.reshape(-1), kind="stable")


def keep_dynamic(
    order_P: Int[np.ndarray, " P"], num_constant: int, num_heads: int
) -> Bool[np.ndarray, "I H"]:
    """Returns which heads keep their own attention if the first k are constant.

    Args:
        order_P: all heads in the order in which they become constant.
        num_constant: k.
        num_heads: heads H of each layer.
    """
    dynamic = np.ones(len(order_P), bool)
    dynamic[order_P[:num_constant]] = False
    return dynamic.reshape(-1, num_heads)


def count_constant(shares: tuple[float, ...], total: int) -> tuple[int, ...]:
    """Returns k for each share of dynamic heads, rising.

    The number of dynamic heads is the share of all heads rounded down, but at least 1
    for shares above 0.
    """
    numbers = {total - (max(1, int(s * total + 1e-9)) if s > 0 else 0) for s in shares}
    return tuple(sorted(numbers))


def rank_by_place(num_layers: int, num_heads: int, from_top: bool) -> np.ndarray:
    """Returns scores that make whole layers constant, from one end on."""
    layers_N1 = np.arange(num_layers, dtype=np.float64)[:, None]
    scores_IH = np.broadcast_to(layers_N1, (num_layers, num_heads))
    return -scores_IH if from_top else scores_IH.copy()


def rank_at_random(num_layers: int, num_heads: int, seed: int) -> np.ndarray:
    """Returns a random score for every head."""
    return np.random.default_rng((seed, 5)).random((num_layers, num_heads))
