"""Fixed layout: rows of L slots, so that a constant can belong to a pair of slots.

    single text   [CLS] text ...            padding ...              [SEP]
    pair          [CLS] text 1 ... padding | [SEP] text 2 ... padding [SEP]
                                           L/2                         L-1

Padding lies inside the row: the mask is no prefix. The last separator is always in slot
L - 1, and the second half of a pair begins at slot L/2, with the separator (RoBERTa's
two) between the texts.

The sane layout cuts each text once: a single text to the L - 1 slots before the
separator, each text of a pair to its own half. Type ids are 1 behind slot L/2 in pairs,
where the family has them. `faithful` keeps what the released code does instead: rows
are cut to L tokens first; single texts are then cut to L/2 tokens as if a second text
followed; type ids stay where they were before the tokens moved, so that in a pair of
less than L/2 tokens the second text has type 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Int64

from sweet_jax.arrays import Batch
from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import encode_texts, has_type_ids
from sweet_jax.data.tokenizer_classes import PreTrainedTokenizerFast

# [CLS] and a token, half of the shortest pair.
SHORTEST = 8


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a row.

    Attributes:
        length: slots L, even.
        faithful: as in the released code.
    """

    length: int
    faithful: bool = False

    @property
    def name(self) -> str:
        """`sane` or `release`, as files and results show it."""
        return "release" if self.faithful else "sane"


@dataclasses.dataclass(frozen=True, eq=False)
class SlotRows:
    """N rows in a fixed layout.

    Attributes:
        token_ids: token ids; the padding token's in empty slots.
        type_ids: segment ids; zeros where the family has none.
        mask: 1 at real tokens.
        labels: class indices.
        row_ids: position of each row in its published split.
        cut_rows: number of rows that lost tokens.
    """

    token_ids: Int32[np.ndarray, "N L"]
    type_ids: Int32[np.ndarray, "N L"]
    mask: Int32[np.ndarray, "N L"]
    labels: Int32[np.ndarray, " N"]
    row_ids: Int64[np.ndarray, " N"]
    cut_rows: int = 0

    @property
    def num_rows(self) -> int:
        """The number of rows N."""
        return len(self.labels)

    @property
    def length(self) -> int:
        """The number of slots L."""
        return self.mask.shape[1]

    def take(self, rows: Int[np.ndarray, " R"], batch_size: int) -> Batch:
        """Returns the rows as a batch, filled up with rows of weight 0."""
        missing = batch_size - len(rows)

        def fill(values: np.ndarray, value: int = 0) -> np.ndarray:
            widths = [(0, missing)] + [(0, 0)] * (values.ndim - 1)
            return np.pad(values, widths, constant_values=value)

        return Batch(
            token_ids=fill(self.token_ids[rows]),
            type_ids=fill(self.type_ids[rows]),
            mask=fill(self.mask[rows]),
            labels=fill(self.labels[rows]),
            weights=fill(np.ones(len(rows), np.float32)),
            row_ids=fill(self.row_ids[rows].astype(np.int32), -1),
        )


def lay_out(
    tokenizer: PreTrainedTokenizerFast, examples: Examples, layout: Layout
) -> SlotRows:
    """Returns the tokens of the examples in their slots.

    Args:
        tokenizer: from `load_tokenizer`.
        examples: texts or pairs.
        layout: the layout.

    Raises:
        ValueError: the tokenizer does not end rows with a separator.
    """
    separator: Any = tokenizer.sep_token_id
    encodings = encode_texts(
        tokenizer,
        examples.texts,
        examples.pairs or (),
        layout.length if layout.faithful else None,
    )
    if separator is None or any(e.ids[-1] != separator for e in encodings):
        raise ValueError(
            "the layout of PAPA moves the separator at the end of a row, and the"
            " encoder's tokenizer adds none: use a BERT, RoBERTa, MPNet, DeBERTa or"
            " ModernBERT with its own tokenizer"
        )
    shape = (len(encodings), layout.length)
    token_ids = np.full(shape, tokenizer.pad_token_id, np.int32)
    type_ids, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    is_pair = examples.pairs is not None
    reads_types, num_cut = has_type_ids(tokenizer), 0
    for i, encoding in enumerate(encodings):
        parts = _split(encoding, is_pair, separator if layout.faithful else None)
        slots, kept = place(parts, layout)
        ids = np.array(encoding.ids, np.int32)
        token_ids[i, slots], mask[i, slots] = ids[kept], 1
        num_cut += len(kept) < len(ids) or bool(encoding.overflowing)
        if reads_types and layout.faithful:
            type_ids[i, : len(ids)] = encoding.type_ids
        elif reads_types and is_pair:
            type_ids[i, layout.length // 2 + 1 :] = 1
    return SlotRows(
        token_ids, type_ids, mask, examples.labels, examples.row_ids, num_cut
    )


def place(
    parts: tuple[int, int], layout: Layout
) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
    """Returns the slots that are filled, and the tokens that fill them.

    Args:
        parts: the number of tokens before the first separator, the first token
            included, and from there up to the last separator, excluded; the latter is
            0 for a single text.
        layout: the layout.
    """
    first, second = parts
    half, last = layout.length // 2, layout.length - 1
    room = half if second or layout.faithful else last
    in_first = np.arange(min(first, room))
    in_second = np.arange(min(second, last - half))
    slots = np.concatenate([in_first, half + in_second, [last]])
    return slots, np.concatenate([in_first, first + in_second, [first + second]])


def _split(encoding: Any, is_pair: bool, separator: int | None) -> tuple[int, int]:
    """Returns how many tokens lie in the first part and in the second; see `place`.

    Args:
        encoding: of the Rust tokenizer.
        is_pair: whether there is a second text.
        separator: an id at whose first occurrence the first part ends, as in the
            released code, even inside a text; None: the part ends with the text.
    """
    last = len(encoding.ids) - 1
    if separator is not None:
        first = encoding.ids.index(separator)
    else:
        first = _find_end(encoding.sequence_ids)
    return (first, last - first) if is_pair else (first, 0)


def _find_end(sequences: Sequence[int | None]) -> int:
    """Returns the position behind the first text; of an empty one, behind [CLS]."""
    places = [i for i, sequence in enumerate(sequences) if sequence == 0]
    return places[-1] + 1 if places else 1
