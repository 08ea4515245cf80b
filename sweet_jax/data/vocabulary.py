"""Whether a tokenizer fits: its own vocabulary says what ordinary text is.

A tokenizer of the wrong kind raises no error: it gives [UNK] for each word, or a token
for each character, and a model trains on that. Words that stand whole in the vocabulary
show it, in any language: each must come back as itself.
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
# How vocabularies mark tokens: after a space (of bytes, of pieces), ending a word,
# inside a word.
_BYTES, _PIECES, _END, _INSIDE = "\u0120", "\u2581", "</w>", "##"
_BELONGS = "use the tokenizer that belongs to the encoder"


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Checks a tokenizer on the words of its own vocabulary.

    Args:
        tokenizer: without padding or truncation.
        folder: it was read from, for messages.

    Raises:
        ValueError: most words become unknown, are cut into pieces or lose their
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
            f"the tokenizer in {folder} cuts {len(cut)} of {len(sample)} words of its"
            f" own vocabulary into pieces, such as {_quote(cut[0])}: its merges or"
            f" scores are missing or of another vocabulary: {_BELONGS}"
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
    """Turns any error of the tokenizer's library into one line about the folder.

    It reads what anyone may have written, a panic of its Rust code is no Exception, and
    what both libraries print meanwhile may hold any character of the file.
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
    """Sends standard error nowhere; Rust writes to the descriptor itself."""
    with contextlib.ExitStack() as stack:
        # Where it is closed already, nothing can be written to it.
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

    Where no entry has two letters (a vocabulary of characters) these are letters.
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
        # Letters, and the marks that are part of them in many scripts.
        if word and all(unicodedata.category(c)[0] in "LM" for c in word):
            words[word] = token_id
    return {w: token_id for w, token_id in words.items() if len(w) > 1} or words


def is_cased(words: Iterable[str]) -> bool:
    """Returns whether the words of a vocabulary tell upper from lower case.

    They do if 2 % of those that have two cases have a capital: somebody may have added
    a few to an uncased vocabulary.
    """
    both = [word for word in words if word.lower() != word.upper()]
    capitals = sum(word != word.lower() for word in both)
    return capitals > 0 and 50 * capitals >= len(both)


def _read_word(token: str, mark: str) -> str:
    """Returns the word that a token stands for; empty where it is none."""
    if mark == _INSIDE:
        return "" if token.startswith(mark) else token
    if mark == _END:
        return token.removesuffix(mark) if token.endswith(mark) else ""
    if not token.startswith(mark):
        return ""
    # Behind the space, a letter stands for each byte.
    return decoders.ByteLevel().decode([token])[1:] if mark == _BYTES else token[1:]


def _spread(words: Sequence[str]) -> list[str]:
    """Returns up to _MOST_WORDS words from all over the vocabulary."""
    step = max(len(words) // _MOST_WORDS, 1)
    return list(itertools.islice(words, 0, None, step))


def _encode(backend: Tokenizer, words: Sequence[str], folder: Path) -> list[list[int]]:
    """Returns the ids of each word, as it is inside of a text: behind a space."""
    with guard_library(folder):
        return [backend.encode(f" {w}", add_special_tokens=False).ids for w in words]


def _check_layout(backend: Tokenizer, folder: Path, word: str) -> None:
    """Checks what a text and a pair get beside their words."""
    known = set(backend.get_vocab(with_added_tokens=True).values())
    with guard_library(folder):
        encodings = [backend.encode(word), backend.encode(word, word)]
    for encoding in encodings:
        if unknown := set(encoding.ids) - known:
            raise ValueError(
                f"the tokenizer in {folder} gives texts the token id"
                f" {min(unknown)}, which its vocabulary has not: {_BELONGS}"
            )
        if max(encoding.type_ids, default=0) > 1:
            raise ValueError(
                f"the tokenizer in {folder} gives texts the type id"
                f" {max(encoding.type_ids)}; allowed are 0 and 1: {_BELONGS}"
            )


def _quote(word: str) -> str:
    return repr(word[:40])
