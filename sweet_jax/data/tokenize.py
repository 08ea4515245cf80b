"""Tokenises texts, and caches the token ids on disk by a digest of all inputs."""

import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Int32, Int64
from tokenizers import processors

from sweet_jax.arrays import ArraySpec, load_npz, save_npz
from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenizer_classes import (
    DebertaTokenizer,
    DebertaV2Tokenizer,
    PreTrainedTokenizerFast,
)
from sweet_jax.data.tokenizer_folder import read_tokenizer
from sweet_jax.data.vocabulary import check_tokenizer
from sweet_jax.system.files import FileError

logger = logging.getLogger(__name__)

# Part of the cache key: raise it when the meaning of the stored arrays changes.
_FORMAT_VERSION = 2
_CACHED = {
    "token_ids": ArraySpec("i", ("S",)),
    "type_ids": ArraySpec("i", ("S",)),
    "offsets": ArraySpec("i", ("R",)),
    "truncated_rows": ArraySpec("i", ()),
    "key": ArraySpec("U", ()),
}
_PAD_TOKENS = ("[PAD]", "<pad>", "<|padding|>")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenized:
    """Token ids of N rows, concatenated; S is the sum of their lengths.

    Attributes:
        token_ids: ids with the special tokens, without padding.
        type_ids: 1 in the second text of a pair, if the family uses type ids.
        offsets: row i is at offsets[i]:offsets[i + 1].
        labels: class indices.
        row_ids: position of each row in its published split.
        truncated_rows: number of rows truncated to the maximum length.
    """

    token_ids: Int32[np.ndarray, " S"]
    type_ids: Int32[np.ndarray, " S"]
    offsets: Int64[np.ndarray, " N_plus_1"]
    labels: Int32[np.ndarray, " N"]
    row_ids: Int64[np.ndarray, " N"]
    truncated_rows: int

    @property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Tokens of each row."""
        return np.diff(self.offsets)

    @property
    def num_rows(self) -> int:
        """The number of rows N."""
        return len(self.labels)

    def cut(self, size: int) -> "Iterator[Tokenized]":
        """Yields the rows in chunks of `size`, with `truncated_rows` set to 0."""
        for start in range(0, self.num_rows, size):
            stop = min(start + size, self.num_rows)
            first, last = self.offsets[start], self.offsets[stop]
            yield Tokenized(
                self.token_ids[first:last],
                self.type_ids[first:last],
                self.offsets[start : stop + 1] - first,
                self.labels[start:stop],
                self.row_ids[start:stop],
                0,
            )


def load_tokenizer(folder: Path, max_positions: int) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of an encoder's folder, without padding or truncation.

    A tokenizer.json may itself pad and truncate; both are switched off here.

    Args:
        folder: has a tokenizer.json, or the vocabulary files of its family.
        max_positions: the encoder's maximum length; `model_max_length` is capped at it
            (it is 1e30 without a tokenizer_config.json).

    Raises:
        ValueError: there is no tokenizer file; or the files cannot be read, ask for
            code or a package that is not installed, or do not belong together.
    """
    tokenizer = read_tokenizer(folder)
    _reset_backend(tokenizer)
    if isinstance(tokenizer, DebertaTokenizer | DebertaV2Tokenizer):
        _lay_out_as_bert(tokenizer)
    tokenizer.model_max_length = min(tokenizer.model_max_length, max_positions)
    if tokenizer.pad_token is None:
        known = [t for t in _PAD_TOKENS if t in tokenizer.get_vocab()]
        if not known:
            raise ValueError(
                f"the tokenizer in {folder} names no padding token: set pad_token in"
                " its tokenizer_config.json"
            )
        tokenizer.pad_token = known[0]
    check_tokenizer(tokenizer, folder)
    return tokenizer


def check_vocabulary(
    tokenizer: PreTrainedTokenizerFast, vocab_size: int, pad_id: int | None = None
) -> None:
    """Checks that every token id has a row in the encoder's embedding table.

    A tokenizer that could be used but seems to be another encoder's is logged.

    Args:
        tokenizer: the encoder's tokenizer.
        vocab_size: rows of the embedding table.
        pad_id: id of the padding token in the encoder's config; None: not stated.

    Raises:
        ValueError: an id is past the table (jax would not report such a lookup).
    """
    # The highest id, not the number of ids, which may have gaps.
    last_id = max(tokenizer.get_vocab().values(), default=-1)
    if last_id >= vocab_size:
        raise ValueError(
            f"the tokenizer has token ids up to {last_id}, the encoder's embedding"
            f" table {vocab_size} rows: use the tokenizer that belongs to the encoder"
        )
    if 2 * (last_id + 1) < vocab_size:
        logger.warning(
            "the tokenizer has token ids up to %d only, but the encoder's embedding"
            " table has %d rows: does it belong to the encoder?",
            last_id,
            vocab_size,
        )
    if pad_id is not None and pad_id != tokenizer.pad_token_id:
        logger.warning(
            "the tokenizer pads with token %s, but the encoder's config.json says"
            " pad_token_id=%d: does it belong to the encoder?",
            tokenizer.pad_token_id,
            pad_id,
        )


def tokenize_examples(
    tokenizer: PreTrainedTokenizerFast,
    examples: Examples,
    max_length: int,
    cache_dir: Path | None,
) -> Tokenized:
    """Returns the token ids of the examples; pairs lose tokens from the longer text.

    Lone surrogates, which UTF-8 cannot encode, become U+FFFD.

    Args:
        tokenizer: from `load_tokenizer`.
        examples: texts or pairs.
        max_length: maximum tokens of a row, special tokens included.
        cache_dir: folder of the token cache; None: no cache.

    Raises:
        ValueError: `max_length` is more than the encoder's maximum, or leaves no room
            for text beside the special tokens.
    """
    is_pair = examples.pairs is not None
    lowest = tokenizer.num_special_tokens_to_add(pair=is_pair) + 1
    highest = tokenizer.model_max_length
    # The tokenizer would ignore a limit that is too low.
    if not lowest <= max_length <= highest:
        raise ValueError(
            f"data.max_length={max_length}: this encoder and task allow {lowest} to"
            f" {highest} tokens"
        )
    texts = [_replace_surrogates(text) for text in examples.texts]
    pairs = [_replace_surrogates(text) for text in examples.pairs or ()]
    if cache_dir is None:
        arrays = _encode(tokenizer, texts, pairs, max_length)
    else:
        key = _compute_key(tokenizer, texts, pairs, max_length)
        path = cache_dir / f"tokens_{key}.npz"
        arrays = _load_arrays(path, key)
        if arrays is None:
            arrays = _encode(tokenizer, texts, pairs, max_length)
            _save_arrays(path, arrays | {"key": np.array(key)})
    return Tokenized(
        token_ids=arrays["token_ids"],
        type_ids=arrays["type_ids"],
        offsets=arrays["offsets"],
        labels=examples.labels,
        row_ids=examples.row_ids,
        truncated_rows=int(arrays["truncated_rows"]),
    )


def _lay_out_as_bert(tokenizer: PreTrainedTokenizerFast) -> None:
    """Sets the special tokens and type ids with which the DeBERTas were trained.

    transformers 5 joins DeBERTa's pairs as RoBERTa does, with two separators and
    without types, and ignores tokenizer.json; its early releases added nothing to
    DeBERTa-v2's texts.
    """
    cls, sep = str(tokenizer.cls_token), str(tokenizer.sep_token)
    _reset_backend(tokenizer).post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[
            (token, tokenizer.convert_tokens_to_ids(token)) for token in (cls, sep)
        ],
    )


def has_type_ids(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the encoder reads the type ids that the tokenizer gives."""
    # A tokenizer.json without a config loads as the base class, which declares no type
    # ids; those of its own post-processor are then right.
    is_bare = type(tokenizer) is PreTrainedTokenizerFast
    return is_bare or "token_type_ids" in tokenizer.model_input_names


def _replace_surrogates(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _compute_key(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    pairs: Sequence[str],
    max_length: int,
) -> str:
    """Returns 32 hex digits of everything that the token ids depend on."""
    settings = (
        _FORMAT_VERSION,
        tokenizers.__version__,
        _reset_backend(tokenizer).to_str(),
        tokenizer.truncation_side,
        has_type_ids(tokenizer),
        max_length,
        len(pairs),
    )
    digest = hashlib.sha256()
    for part in (*map(str, settings), *texts, *pairs):
        data = part.encode()
        # The length first: otherwise ("ab", "c") and ("a", "bc") would be equal.
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]


def _reset_backend(tokenizer: PreTrainedTokenizerFast) -> tokenizers.Tokenizer:
    """Returns the Rust tokenizer, with padding and truncation switched off."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend


def encode_texts(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    pairs: Sequence[str],
    max_length: int | None,
) -> list[tokenizers.Encoding]:
    """Returns the Rust tokenizer's own encodings, which know each token's text.

    Args:
        tokenizer: from `load_tokenizer`.
        texts: the (first) text of each row.
        pairs: the second texts; empty for single texts.
        max_length: longer rows lose tokens, pairs from the longer text; None: rows
            keep all tokens.
    """
    backend = _reset_backend(tokenizer)
    if max_length is not None:
        backend.enable_truncation(
            max_length,
            strategy="longest_first",
            direction=tokenizer.truncation_side,
        )
    texts, pairs = (list(map(_replace_surrogates, t)) for t in (texts, pairs))
    # The Rust tokenizer, because only it reports which rows it truncated.
    encodings = backend.encode_batch(
        list(zip(texts, pairs, strict=True)) if pairs else texts
    )
    backend.no_truncation()
    return encodings


def _encode(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    pairs: Sequence[str],
    max_length: int,
) -> dict[str, np.ndarray]:
    encodings = encode_texts(tokenizer, texts, pairs, max_length)
    lengths = np.array([len(encoding.ids) for encoding in encodings], np.int64)
    token_ids = np.concatenate(
        [np.empty(0, np.int32), *(np.array(e.ids, np.int32) for e in encodings)]
    )
    type_ids = np.zeros_like(token_ids)
    if has_type_ids(tokenizer):
        type_ids = np.concatenate(
            [
                np.empty(0, np.int32),
                *(np.array(e.type_ids, np.int32) for e in encodings),
            ]
        )
    return {
        "token_ids": token_ids,
        "type_ids": type_ids,
        "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        "truncated_rows": np.array(sum(bool(e.overflowing) for e in encodings)),
    }


def _load_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """Returns the stored arrays, or None if they are absent or damaged."""
    if not path.exists():
        return None
    try:
        arrays = load_npz(path, _CACHED, "tokenising again")
    except FileError as error:
        logger.warning("token cache: %s", error)
        return None
    # A renamed file may hold other rows or another tokenizer's ids.
    if str(arrays["key"]) != key:
        logger.warning("token cache: %s has other texts: tokenising again", path)
        return None
    return arrays


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_npz(path, arrays)
    except OSError as error:
        # The cache only saves time: a full or read-only disk must not end the run.
        logger.warning("token cache %s is not written: %s", path, error)
