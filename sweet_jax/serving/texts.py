"""Texts that people hand over, checked, as rows."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from sweet_jax.data.examples import Examples

Text = str | tuple[str, str]


def is_pair(text: object) -> bool:
    """Returns whether this is a (text, text) pair."""
    return (
        isinstance(text, tuple)
        and len(text) == 2
        and all(isinstance(part, str) for part in text)
    )


def make_examples(
    texts: list[Text], has_pairs: bool, task: str, first: int = 0
) -> Examples:
    """Returns texts as rows, without labels.

    Args:
        texts: each a text, or a (text, text) pair.
        has_pairs: which of the two the model takes.
        task: it was trained on, for messages.
        first: number of the first text, for messages.

    Raises:
        ValueError: a text is empty, or of the other kind than the model's.
    """
    for i, text in enumerate(texts, first):
        if has_pairs and not is_pair(text):
            raise ValueError(
                f"input {i} is no (text, text) pair: this model was trained on pairs"
                f" ({task})"
            )
        if not has_pairs and not isinstance(text, str):
            raise ValueError(
                f"input {i} is a {type(text).__name__}: this model takes single texts"
                f" ({task})"
            )
        if not all(part.strip() for part in _parts(text)):
            raise ValueError(f"input {i} is empty: leave it out")
    return Examples(
        tuple(_parts(text)[0] for text in texts),
        tuple(_parts(text)[1] for text in texts) if has_pairs else None,
        np.zeros(len(texts), np.int32),
        np.arange(len(texts), dtype=np.int64),
    )


def enumerate_chunks(
    items: Iterable[Text], size: int
) -> Iterator[tuple[int, list[Text]]]:
    """Yields lists of up to `size` items, each with the position of its first."""
    iterator, first = iter(items), 0
    while chunk := list(itertools.islice(iterator, size)):
        yield first, chunk
        first += len(chunk)


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text
