"""Checks texts from users and returns them as rows."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sweet_jax.data.examples import Examples
from sweet_jax.data.python_rows import is_missing
from sweet_jax.system.files import show

Text = str | tuple[str, str]


def is_pair(text: object) -> bool:
    """Whether this is a (text, text) pair."""
    return (
        isinstance(text, tuple)
        and len(text) == 2
        and all(isinstance(part, str) for part in text)
    )


def take_texts(texts: Any, has_pairs: bool) -> Iterable[Any]:
    """Returns the inputs of a call: a list for all sequences, else the iterable.

    Args:
        texts: a single input, a list or tuple of inputs, a pandas Series, a numpy
            array, or any other iterable, which is read only as predictions are
            consumed.
        has_pairs: whether the model takes pairs, so that a tuple of two strings is one.

    Raises:
        ValueError: a Series has a missing value, or `texts` is a whole table.
    """
    if isinstance(texts, str) or (has_pairs and is_pair(texts)):
        return [texts]
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise ValueError(
            f"texts is of type {type(texts).__name__}: give one column of it, such as"
            " table['text'], or for pairs list(zip(table['a'], table['b']))"
        )
    if isinstance(texts, np.ndarray):
        return _as_rows(texts.tolist())
    if hasattr(texts, "to_numpy"):
        values = list(texts)
        index = getattr(texts, "index", range(len(values)))
        for place, value in zip(index, values, strict=True):
            if is_missing(value):
                raise ValueError(
                    f"the input at index {show(str(place))} is missing ({value}): fill"
                    " it or leave it out"
                )
        return values
    return texts


def _as_rows(rows: list[Any]) -> list[Any]:
    """Returns the rows of an array: a text of one column, a pair of two."""
    return [
        (row[0] if len(row) == 1 else tuple(row)) if isinstance(row, list) else row
        for row in rows
    ]


def make_examples(
    texts: list[Any], has_pairs: bool, task: str, first: int = 0
) -> Examples:
    """Returns texts as rows, without labels.

    Args:
        texts: each a text, or a (text, text) pair.
        has_pairs: whether the model takes pairs.
        task: its training task, for messages.
        first: number of the first text, for messages.

    Raises:
        ValueError: a text is empty, or single where the model takes pairs, or the
            reverse.
    """
    for i, text in enumerate(texts, first):
        if is_missing(text):
            raise ValueError(f"input {i} is missing ({text}): fill it or leave it out")
        if has_pairs and not is_pair(text):
            raise ValueError(
                f"input {i} is not a (text, text) pair: this model was trained on pairs"
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
    """Yields lists of up to `size` items, with the position of their first item."""
    iterator, first = iter(items), 0
    while chunk := list(itertools.islice(iterator, size)):
        yield first, chunk
        first += len(chunk)


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text
