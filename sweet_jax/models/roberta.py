"""RoBERTa (Liu et al., 2019) and XLM-RoBERTa (Conneau et al., 2020).

A BERT whose positions start past the padding token's id, an inheritance of fairseq:
row `pad_token_id` of the position table is padding's own, rows before it are never
read. So a table of 514 rows takes 512 tokens.

Departure from Hugging Face: positions count the tokens of the row, whatever they are.
There a padding token written into a text counts as no token, and padding itself reads
row `pad_token_id`; the states of padding, which nothing reads, differ.
"""

import dataclasses

from sweet_jax.models.bert import BertConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobertaConfig(BertConfig):
    """What defines a RoBERTa; its encoder is `bert.BertEncoder`."""

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads."""
        return self.pad_token_id + 1
