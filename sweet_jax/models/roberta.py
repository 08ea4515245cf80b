"""RoBERTa (Liu et al., 2019) and XLM-RoBERTa (Conneau et al., 2020).

A BERT whose positions start after the padding token's id, as in fairseq: row
`pad_token_id` of the position table is for padding, and rows before it are never read.
So a table of 514 rows allows 512 tokens.

Departure from Hugging Face: positions count all tokens of the row. There, a padding
token inside a text is not counted, and padding reads row `pad_token_id`; so the states
of padding differ, which are never read.
"""

import dataclasses

from sweet_jax.models.bert import BertConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobertaConfig(BertConfig):
    """The config of a RoBERTa; its encoder is `bert.BertEncoder`."""

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads."""
        return self.pad_token_id + 1
