"""Disentangled self-attention (He et al., 2021), with separate content and distance.

The score of query i and key j has three terms (section 3.1, equation 4):

    (q_i k_j + q_i pk_(i-j) + k_j pq_(i-j)) / sqrt(3 K)

content to content, content to position (c2p) and position to content (p2c). Each layer
computes pk and pq from one distance table that all layers share. As in the released
models, both read the row of i - j, where the equation has j - i in p2c.

Departure from Hugging Face: only rows of distances that occur are projected, and terms
are spread from distances to pairs of positions by reshaping, not by a gather of L * L
indices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int

from sweet_jax.models.attention import SelfAttention, split_heads
from sweet_jax.models.layers import Dropout

# Terms of a score; their sum has three times the variance of one term.
NUM_TERMS = 3


def find_rows(
    buckets: Int[np.ndarray, " S"], span: int
) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " S"]]:
    """Returns the rows of a distance table that the buckets read.

    Args:
        buckets: the buckets of S distances, query position minus key position.
        span: rows on either side; buckets beyond read the outermost row.

    Returns:
        The R rows that are read, increasing, and each bucket's index in them.
    """
    rows_R, place_S = np.unique(
        np.clip(buckets + span, 0, 2 * span - 1), return_inverse=True
    )
    return rows_R, place_S


def spread_distances(
    terms_BHLS: Float[jax.Array, "B H L S"],
) -> Float[jax.Array, "B H L L"]:
    """Returns spread[..., i, j] = terms[..., i, j - i + L - 1].

    Args:
        terms_BHLS: the terms of each position i and the S = 2L - 1 increasing distances
            j - i.
    """
    *leading, length, num_distances = terms_BHLS.shape
    # With one padded column, the entries for j = 0 (distance -i in row i) are S apart:
    # reshaping to rows of S entries, from the first of them on, aligns j.
    padded = jnp.pad(terms_BHLS, [(0, 0)] * (terms_BHLS.ndim - 1) + [(0, 1)])
    flat = padded.reshape(*leading, length * (num_distances + 1))
    flat = flat[..., length - 1 : length - 1 + length * num_distances]
    return flat.reshape(*leading, length, num_distances)[..., :length]


class Projections(NamedTuple):
    """Projections of contents and of distance rows, split into heads."""

    query_BLHK: jax.Array
    key_BMHK: jax.Array
    value_BMHK: jax.Array
    position_query_RHK: jax.Array
    position_key_RHK: jax.Array


class DisentangledAttention(SelfAttention):
    """The post-norm block with disentangled scores; subclasses define `project`."""

    def compare(
        self, x_BLD: Float[jax.Array, "B L D"], train: bool, *shared: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the scores, float32 [B, H, L, M], and the values [B, M, H, K].

        Args:
            x_BLD: the input of queries, keys and values.
            train: whether dropout is on.
            shared: the rows of the distance table that are read, [R, D], and the index
                in them of each distance, query minus key, increasing from 1 - L, [S].
        """
        rows_RD, place_S = shared
        assert rows_RD is not None
        assert place_S is not None
        rows_RD = Dropout(self.hidden_dropout, name="position_dropout")(rows_RD, train)
        parts = self.project(x_BLD, rows_RD)
        scale = (NUM_TERMS * parts.query_BLHK.shape[-1]) ** -0.5
        query_BLHK = parts.query_BLHK * scale
        scores_BHLM = _multiply("BLHK,BMHK->BHLM", query_BLHK, parts.key_BMHK)
        # A term is indexed by the position whose content it reads: c2p by queries, with
        # increasing key - query; p2c by keys, with increasing query - key.
        key_SHK = jnp.take(parts.position_key_RHK, place_S[::-1], axis=0, mode="clip")
        c2p_BHLS = _multiply("BLHK,SHK->BHLS", query_BLHK, key_SHK)
        query_RHK = parts.position_query_RHK * scale
        query_SHK = jnp.take(query_RHK, place_S, axis=0, mode="clip")
        p2c_BHMS = _multiply("BMHK,SHK->BHMS", parts.key_BMHK, query_SHK)
        p2c_BHLM = spread_distances(p2c_BHMS).swapaxes(-1, -2)
        return scores_BHLM + spread_distances(c2p_BHLS) + p2c_BHLM, parts.value_BMHK

    def project(
        self, x_BLD: Float[jax.Array, "B L D"], rows_RD: Float[jax.Array, "R D"]
    ) -> Projections:
        """Returns the projections of contents and distance rows."""
        raise NotImplementedError


class PackedAttention(DisentangledAttention):
    """DeBERTa's attention: one kernel for query, key and value; keys have no bias."""

    def project(
        self, x_BLD: Float[jax.Array, "B L D"], rows_RD: Float[jax.Array, "R D"]
    ) -> Projections:
        """Returns the projections of contents and distance rows."""
        features, heads = x_BLD.shape[-1], self.num_heads

        def make_bias(name: str) -> jax.Array:
            bias_D = self.param(name, nn.initializers.zeros, (features,))
            return split_heads(jnp.asarray(bias_D, self.dtype), heads)[None, None]

        packed = self.make_map(3 * features, "query_key_value", use_bias=False)
        # Packed within each head: first its query, then its key, then its value.
        query_BLHK, key_BMHK, value_BMHK = jnp.split(
            split_heads(packed(x_BLD), heads), 3, axis=-1
        )
        position_query = self.make_map(features, "position_query")
        position_key = self.make_map(features, "position_key", use_bias=False)
        return Projections(
            query_BLHK + make_bias("query_bias"),
            key_BMHK,
            value_BMHK + make_bias("value_bias"),
            split_heads(position_query(rows_RD), heads),
            split_heads(position_key(rows_RD), heads),
        )


class SeparateAttention(DisentangledAttention):
    """DeBERTa-v2's attention: separate kernels for query, key and value."""

    def project(
        self, x_BLD: Float[jax.Array, "B L D"], rows_RD: Float[jax.Array, "R D"]
    ) -> Projections:
        """Returns the projections of contents and distance rows."""
        features, heads = x_BLD.shape[-1], self.num_heads
        query, key, value = (
            self.make_map(features, name) for name in ("query", "key", "value")
        )
        position_query, position_key = self.get_position_maps(query, key)
        return Projections(
            split_heads(query(x_BLD), heads),
            split_heads(key(x_BLD), heads),
            split_heads(value(x_BLD), heads),
            split_heads(position_query(rows_RD), heads),
            split_heads(position_key(rows_RD), heads),
        )

    def get_position_maps(
        self, query: nn.Dense, key: nn.Dense
    ) -> tuple[nn.Dense, nn.Dense]:
        """Returns separate query and key layers for distance rows."""
        return (
            self.make_map(query.features, "position_query"),
            self.make_map(key.features, "position_key"),
        )


class TiedAttention(SeparateAttention):
    """DeBERTa-v2's attention with `share_att_key`: rows use the contents' kernels."""

    def get_position_maps(
        self, query: nn.Dense, key: nn.Dense
    ) -> tuple[nn.Dense, nn.Dense]:
        """Returns the contents' query and key layers."""
        return query, key


def _multiply(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
