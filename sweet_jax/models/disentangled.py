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

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int

from sweet_jax.models.attention import SelfAttention
from sweet_jax.models.heads import HeadDense, take_heads
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
    """Projections of contents and of distance rows; G dynamic heads, H in all."""

    query_BLGK: jax.Array
    key_BMGK: jax.Array
    value_BMHK: jax.Array
    position_query_RGK: jax.Array
    position_key_RGK: jax.Array


class DisentangledAttention(SelfAttention):
    """The post-norm block with disentangled scores; subclasses define `project`."""

    def compare(
        self, x_BLD: Float[jax.Array, "B L D"], train: bool, *shared: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the scores of dynamic heads and the values of all.

        Scores are float32 [B, G, L, M], values [B, M, H, K].

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
        scale = (NUM_TERMS * parts.query_BLGK.shape[-1]) ** -0.5
        query_BLGK = parts.query_BLGK * scale
        scores_BGLM = _multiply("BLGK,BMGK->BGLM", query_BLGK, parts.key_BMGK)
        # A term is indexed by the position whose content it reads: c2p by queries, with
        # increasing key - query; p2c by keys, with increasing query - key.
        key_SGK = jnp.take(parts.position_key_RGK, place_S[::-1], axis=0, mode="clip")
        c2p_BGLS = _multiply("BLGK,SGK->BGLS", query_BLGK, key_SGK)
        query_RGK = parts.position_query_RGK * scale
        query_SGK = jnp.take(query_RGK, place_S, axis=0, mode="clip")
        p2c_BGMS = _multiply("BMGK,SGK->BGMS", parts.key_BMGK, query_SGK)
        p2c_BGLM = spread_distances(p2c_BGMS).swapaxes(-1, -2)
        return scores_BGLM + spread_distances(c2p_BGLS) + p2c_BGLM, parts.value_BMHK

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
        features, dynamic = x_BLD.shape[-1], self.dynamic_heads

        def make_bias(name: str, heads: Sequence[int]) -> jax.Array:
            bias_D = self.param(name, nn.initializers.zeros, (features,))
            bias_HK = jnp.asarray(bias_D, self.dtype).reshape(self.num_heads, -1)
            return take_heads(bias_HK, heads, 0)[None, None]

        # Packed within each head: first its query, then its key, then its value.
        everyone = range(self.num_heads)
        numbers = [
            3 * head + part
            for head in everyone
            for part in ((0, 1, 2) if head in dynamic else (2,))
        ]
        packed = self.make_heads(features, "query_key_value", 3, use_bias=False)
        parts = packed(x_BLD, numbers)
        if len(dynamic) == self.num_heads:
            by_head = parts.reshape(*parts.shape[:2], self.num_heads, -1)
            query_BLGK, key_BMGK, value_BMHK = jnp.split(by_head, 3, axis=-1)
        else:
            query_BLGK, key_BMGK, value_BMHK = (
                take_heads(parts, [numbers.index(3 * i + part) for i in heads], 2)
                for part, heads in enumerate((dynamic, dynamic, everyone))
            )
        position_query = self.make_heads(features, "position_query")
        position_key = self.make_heads(features, "position_key", use_bias=False)
        return Projections(
            query_BLGK + make_bias("query_bias", dynamic),
            key_BMGK,
            value_BMHK + make_bias("value_bias", everyone),
            position_query(rows_RD, dynamic),
            position_key(rows_RD, dynamic),
        )


class SeparateAttention(DisentangledAttention):
    """DeBERTa-v2's attention: separate kernels for query, key and value."""

    def project(
        self, x_BLD: Float[jax.Array, "B L D"], rows_RD: Float[jax.Array, "R D"]
    ) -> Projections:
        """Returns the projections of contents and distance rows."""
        dynamic = self.dynamic_heads
        query, key, value = (
            self.make_heads(x_BLD.shape[-1], name) for name in ("query", "key", "value")
        )
        position_query, position_key = self.get_position_maps(query, key)
        return Projections(
            query(x_BLD, dynamic),
            key(x_BLD, dynamic),
            value(x_BLD, range(self.num_heads)),
            position_query(rows_RD, dynamic),
            position_key(rows_RD, dynamic),
        )

    def get_position_maps(
        self, query: HeadDense, key: HeadDense
    ) -> tuple[HeadDense, HeadDense]:
        """Returns separate query and key layers for distance rows."""
        return (
            self.make_heads(query.features, "position_query"),
            self.make_heads(key.features, "position_key"),
        )


class TiedAttention(SeparateAttention):
    """DeBERTa-v2's attention with `share_att_key`: rows use the contents' kernels."""

    def get_position_maps(
        self, query: HeadDense, key: HeadDense
    ) -> tuple[HeadDense, HeadDense]:
        """Returns the contents' query and key layers."""
        return query, key


def _multiply(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
