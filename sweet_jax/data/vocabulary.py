"""Checks a tokenizer on the words of its own vocabulary.

A tokenizer of the wrong kind raises no error: it returns [UNK] for each word, or a
token for each character, and a model trains on that. Words that are entries of the
vocabulary reveal it, in any language: each must be tokenised to its own id.
"""

import contextlib
import itertools
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders

from sweet_jax.data.tokenizer_classes import PreTrainedTokenizerFast
from sweet_jax.system import files

logger = logging.getLogger(__name__)

_MOST_WORDS = 200
# Marks of tokens in vocabularies: after a space (byte-level BPE, SentencePiece), at the
# end of a word, inside a word.
_BYTES, _PIECES, _END, _INSIDE = "\u0120", "\u2581", "</w>", "##"
_BELONGS = "use the tokenizer that belongs to the encoder"


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Checks a tokenizer on the words of its own vocabulary.

    Args:
        tokenizer: a tokenizer without padding or truncation.
        folder: its folder, for messages.

    Raises:
        ValueError: most words become unknown, are split into pieces or lose their
            capitals; or texts get token ids or type ids that do not exist.
    """
    backend: Tokenizer = tokenizer.backend_tokenizer
    words = find_words(backend.get_vocab(with_added_tokens=False))
    lower = [word for word in words if word == word.lower()]
    upper = [word for word in words if word != word.lower()] if is_cased(words) else []
    for sample in (_spread(lower), _spread(upper)):
        rows = _encode(backend, sample, folder)
        lost = [
            word
            for word, row in zip(sample, rows, strict=True)
            if not row or tokenizer.unk_token_id in row
        ]
        cut = [
            word
            for word, row in zip(sample, rows, strict=True)
            if row != [words[word]] and len(word) > 1
        ]
        if 2 * len(lost) > len(sample):
            raise ValueError(
                f"the tokenizer in {folder} gives unknown tokens for {len(lost)} of"
                f" {len(sample)} words of its own vocabulary, such as"
                f" {_quote(lost[0])}: its files belong to different tokenizers, or its"
                f" class is wrong: {_BELONGS}"
            )
        if 2 * len(cut) <= len(sample):
            continue
        lowered = [word.lower() for word in cut]
        if lowered != cut and _encode(backend, cut, folder) == _encode(
            backend, lowered, folder
        ):
            raise ValueError(
                f"the tokenizer in {folder} lower-cases text, and its vocabulary has"
                f" {len(upper)} words with capitals, such as {_quote(cut[0])}: set"
                " do_lower_case to false in its tokenizer_config.json"
            )
        raise ValueError(
            f"the tokenizer in {folder} splits {len(cut)} of {len(sample)} words of its"
            f" own vocabulary into pieces, such as {_quote(cut[0])}: its merges or"
            f" scores are missing or belong to another vocabulary: {_BELONGS}"
        )
    capitals = [word.title() for word in _spread(lower) if word.title() != word]
    if not upper and capitals:
        unknown = tokenizer.unk_token_id
        lost = [ids for ids in _encode(backend, capitals, folder) if unknown in ids]
        if 2 * len(lost) > len(capitals):
            logger.warning(
                "the vocabulary of %s is lower-case and text is not lower-cased: words"
                " with capitals become unknown tokens (do_lower_case in its"
                " tokenizer_config.json)",
                folder,
            )
    _check_layout(backend, folder, next(iter(words), "a"))


@contextlib.contextmanager
def guard_library(folder: Path) -> Iterator[None]:
    """Turns any error of the tokenizer library into one line about the folder.

    The files may be hostile, a panic of the library's Rust code is not an Exception,
    and both libraries may print any characters of the files.
    """
    try:
        with _silence_stderr():
            yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            reason = files.show(" ".join(str(error).split())[:200])
            raise ValueError(
                f"the tokenizer in {folder} cannot be read ({reason}): copy its files"
                " again"
            ) from error
        raise


@contextlib.contextmanager
def _silence_stderr() -> Iterator[None]:
    """Redirects descriptor 2 to /dev/null; Rust does not write through sys.stderr."""
    with contextlib.ExitStack() as stack:
        # If it is closed already, nothing can be written to it.
        with contextlib.suppress(OSError):
            sys.stderr.flush()
            saved = os.dup(2)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            os.dup2(nowhere, 2)
        yield


def find_words(vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Returns the whole words of a vocabulary, as plain text, with their ids.

    A vocabulary of characters has no whole words: its letters are returned.
    """
    counts = {
        _BYTES: sum(token.startswith(_BYTES) for token in vocabulary),
        _PIECES: sum(token.startswith(_PIECES) for token in vocabulary),
        _END: sum(token.endswith(_END) for token in vocabulary),
        _INSIDE: sum(token.startswith(_INSIDE) for token in vocabulary),
    }
    mark = max(counts, key=lambda mark: counts[mark])
    words = {}
    for token, token_id in vocabulary.items():
        word = _read_word(token, mark if counts[mark] > 1 else _INSIDE)
        # Letters, and the combining marks of many scripts.
        if word and all(unicodedata.category(c)[0] in "LM" for c in word):
            words[word] = token_id
    return {w: token_id for w, token_id in words.items() if len(w) > 1} or words


def is_cased(words: Iterable[str]) -> bool:
    """Returns whether the words of a vocabulary have upper and lower case.

    At least 2 % of the words that have two cases must have a capital, since a few may
    have been added to an uncased vocabulary.
    """
    both = [word for word in words if word.lower() != word.upper()]
    capitals = sum(word != word.lower() for word in both)
    return capitals > 0 and 50 * capitals >= len(both)


def _read_word(token: str, mark: str) -> str:
    """Returns the whole word of a token; empty if it is not a whole word."""
    if mark == _INSIDE:
        return "" if token.startswith(mark) else token
    if mark == _END:
        return token.removesuffix(mark) if token.endswith(mark) else ""
    if not token.startswith(mark):
        return ""
    # In byte-level BPE, a character stands for each byte; the first one is the space.
    return decoders.ByteLevel().decode([token])[1:] if mark == _BYTES else token[1:]


def _spread(words: Sequence[str]) -> list[str]:
    """Returns about _MOST_WORDS words, spread evenly over the vocabulary."""
    step = max(len(words) // _MOST_WORDS, 1)
    return list(itertools.islice(words, 0, None, step))


def _encode(backend: Tokenizer, words: Sequence[str], folder: Path) -> list[list[int]]:
    """Returns the ids of each word after a space, as inside a text."""
    with guard_library(folder):
        return [backend.encode(f" {w}", add_special_tokens=False).ids for w in words]


def _check_layout(backend: Tokenizer, folder: Path, word: str) -> None:
    """Checks the special tokens and type ids of a text and a pair."""
    known = set(backend.get_vocab(with_added_tokens=True).values())
    with guard_library(folder):
        encodings = [backend.encode(word), backend.encode(word, word)]
    for encoding in encodings:
        if unknown := set(encoding.ids) - known:
            raise ValueError(
                f"the tokenizer in {folder} gives texts the token id"
                f" {min(unknown)}, which is not in its vocabulary: {_BELONGS}"
            )
        if max(encoding.type_ids, default=0) > 1:
            raise ValueError(
                f"the tokenizer in {folder} gives texts the type id"
                f" {max(encoding.type_ids)}; allowed are 0 and 1: {_BELONGS}"
            )


def _quote(word: str) -> str:
    return repr(word[:40])
