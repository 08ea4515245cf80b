"""Rotary positions (Su et al., 2021): queries and keys are rotated by their position.

Each pair of a head's numbers is a point in a plane. At position p, pair k is rotated by
the angle p * theta^(-2k / K), so that scores depend only on distances of positions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


def compute_frequencies(theta: float, head_dim: int) -> np.ndarray:
    """Returns the angle between neighbouring tokens for each pair, float32 [K / 2].

    Args:
        theta: base of the frequencies; the last pairs rotate more slowly if larger.
        head_dim: K, even.
    """
    # In float32, as in PyTorch: an exact power would differ in the last bit, and
    # position 8,000 multiplies the difference.
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return np.float32(1) / np.power(np.float32(theta), exponents)


def rotate(x_BLHK: Float[jax.Array, "B L H K"], theta: float) -> jax.Array:
    """Returns x with each head rotated by its position, [B, L, H, K].

    Number k is paired with number k + K / 2 (not with its neighbour, as in the paper).
    Angles, sines and products are float32 for every type of x; Hugging Face rounds the
    sines to that type.
    """
    length, head_dim = x_BLHK.shape[1], x_BLHK.shape[3]
    positions = jnp.arange(length, dtype=jnp.float32)
    angles = positions[:, None] * compute_frequencies(theta, head_dim)[None, :]
    # One angle per position and pair, the same for all rows and heads.
    cos, sin = jnp.cos(angles)[None, :, None, :], jnp.sin(angles)[None, :, None, :]
    first, second = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x_BLHK.dtype)
