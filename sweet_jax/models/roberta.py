"""RoBERTa (Liu et al., 2019) and XLM-RoBERTa (Conneau et al., 2020).

A BERT whose positions start after the padding token's id, as in fairseq: row
`pad_token_id` of the position table is for padding, and rows before it are never read.
So a table of 514 rows allows 512 tokens.

Departure from Hugging Face: positions count all tokens of the row. There, a padding
token inside a text is not counted, and padding reads row `pad_token_id`; so the states
of padding differ, which are never read.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Float, Int

from sweet_jax.arrays import Array
from sweet_jax.models.bert import BertConfig, BertEncoder
from sweet_jax.models.encoder import Encoder
from sweet_jax.models.post_norm import Embeddings


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobertaConfig(BertConfig):
    """The config of a RoBERTa; its encoder is `bert.BertEncoder`."""

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads."""
        return self.pad_token_id + 1


class GapClosingEmbeddings(Embeddings):
    """Embeddings whose positions count real tokens only, as in Hugging Face."""

    def select_positions(
        self, table_RD: Float[Array, "R D"], token_ids: Int[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        """See `Embeddings`; padding reads the row of its own id."""
        pad_id = self.config.position_offset - 1
        real_BL = (token_ids != pad_id).astype(jnp.int32)
        return table_RD[jnp.cumsum(real_BL, axis=1) * real_BL + pad_id]


class GapClosingEncoder(BertEncoder):
    """A RoBERTa that reads rows with padding inside as Hugging Face's does."""

    embeddings_class = GapClosingEmbeddings


def close_gaps(encoder: Encoder) -> Encoder:
    """Returns a RoBERTa whose positions count real tokens only."""
    return GapClosingEncoder(
        config=encoder.config, num_layers=encoder.num_layers, dtype=encoder.dtype
    )
