"""BERT encoder (Devlin et al., 2019): learned absolute positions, post-norm layers.

Departures from Hugging Face's BertModel: no pooler (every exit owns one), no decoder
and no cross-attention, masks by finfo.min, and possibly fewer layers than the
checkpoint (`num_layers`).
"""

import dataclasses

from sweet_jax.models.encoder import Encoder
from sweet_jax.models.post_norm import Embeddings, PostNormConfig, PostNormLayer


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(PostNormConfig):
    """The config of a BERT.

    Attributes:
        pad_token_id: id of the padding token.
    """

    pad_token_id: int


class BertEncoder(Encoder):
    """Embeddings and the first layers of a BERT."""

    embeddings_class = Embeddings
    layer_class = PostNormLayer
