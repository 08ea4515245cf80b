"""Splits test rows off the training rows if no test rows are given.

The choice is random with a fixed seed and stratified by class. Rows with the same text
stay together, so that no test text is in the training rows.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64

from sweet_jax.data.examples import Examples
from sweet_jax.data.notes import list_keys
from sweet_jax.data.rows import quote

FIXED_SEED = 0
# One each to train, to calibrate and to test on.
LEAST_TEXTS = 3
_MOST_SHOWN = 5


def hold_out(rows: Examples, num_held: int, num_left: int) -> tuple[Examples, Examples]:
    """Splits rows off.

    Each class gives its share of the texts, at least one, as far as `num_left` allows.
    Rows whose texts differ only in case and spaces count once and stay together; a text
    with more rows than the share of its class is not chosen.

    Args:
        rows: the rows to choose from.
        num_held: the maximum number of rows to split off; at least one per class.
        num_left: the number of different texts of each class that must stay.

    Returns:
        The rows that stay and the rows split off, each in their original order.
    """
    group_N, class_G = _group(rows)
    sizes_G = np.bincount(group_N)
    texts_C = np.bincount(class_G)
    rows_C = np.bincount(class_G, weights=sizes_G).astype(np.int64)
    num_texts = round(num_held * len(class_G) / len(rows))
    most_texts_C = np.minimum(share_out(texts_C, num_texts), texts_C - num_left)
    most_rows_C = share_out(rows_C, num_held)
    order = np.random.default_rng(FIXED_SEED).permutation(len(class_G))
    by_class = order[np.argsort(class_G[order], kind="stable")]
    held_G = np.zeros(len(class_G), bool)
    for c, groups in enumerate(np.split(by_class, np.cumsum(texts_C)[:-1])):
        most = int(most_texts_C[c]), int(most_rows_C[c])
        held_G[_choose(groups.tolist(), sizes_G, *most)] = True
    held_N = held_G[group_N]
    return rows.select(np.flatnonzero(~held_N)), rows.select(np.flatnonzero(held_N))


def order_stratified(
    labels: Int[np.ndarray, " N"], rng: np.random.Generator
) -> Int64[np.ndarray, " N"]:
    """Returns a random order whose every prefix is stratified.

    Each class is spread evenly, so that among the first n rows its share is that among
    all rows, to about one row.

    Args:
        labels: class indices.
        rng: decides the order within each class and breaks ties between classes.
    """
    shuffled = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def check_class_sizes(
    rows: Examples, label_names: Sequence[str], where: str, label_column: str
) -> None:
    """Raises ValueError if a class has too few texts to be split.

    Args:
        rows: the training rows.
        label_names: names by class index.
        where: the file or data set of the rows, for messages.
        label_column: the column of the labels; empty: it has no name.
    """
    _, class_G = _group(rows)
    present = np.unique(rows.labels)
    counts_C = np.bincount(class_G, minlength=len(label_names))
    few = [c for c in present if counts_C[c] < LEAST_TEXTS]
    if not few:
        return
    shown = ", ".join(
        f"{quote(label_names[int(c)])} has {counts_C[c]}" for c in few[:_MOST_SHOWN]
    )
    column = f", or name another label column than {quote(label_column)}"
    raise ValueError(
        f"{where}: {len(few)} of {len(present)} classes have too few different texts"
        f" to split test and calibration rows off ({shown}{', ...' * (len(few) > 5)}):"
        f" {LEAST_TEXTS} are needed in each; add rows, leave such classes out, give"
        f" test rows of your own (data.test_file){column if label_column else ''}"
    )


def share_out(counts_C: Int[np.ndarray, " C"], number: int) -> Int64[np.ndarray, " C"]:
    """Returns how many of `number` rows each class gives.

    Each class gives its share, rounded so that the sum is `number`, and at least one
    row if it has any.
    """
    exact_C = counts_C * number / counts_C.sum()
    quotas_C = np.maximum(np.floor(exact_C), counts_C > 0).astype(np.int64)
    for c in np.argsort(quotas_C - exact_C, kind="stable"):
        if quotas_C.sum() >= number:
            break
        quotas_C[c] += quotas_C[c] < exact_C[c]
    while quotas_C.sum() > max(number, np.count_nonzero(counts_C)):
        quotas_C[np.argmax(quotas_C)] -= 1
    return quotas_C


def _group(
    rows: Examples,
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " G"]]:
    """Returns the number of each row's text, and the class of each text.

    A text with several labels has the class of its first row.
    """
    numbers: dict[str, int] = {}
    keys = list_keys(rows.texts, rows.pairs)
    group_N = np.array([numbers.setdefault(key, len(numbers)) for key in keys], int)
    _, first_G = np.unique(group_N, return_index=True)
    return group_N, rows.labels[first_G].astype(np.int64)


def _choose(
    groups: list[int], sizes_G: Int64[np.ndarray, " G"], most: int, most_rows: int
) -> list[int]:
    """Returns up to `most` groups of a class, of up to `most_rows` rows if any fit."""
    chosen: list[int] = []
    left = most_rows
    for group in groups:
        if len(chosen) < most and sizes_G[group] <= left:
            chosen.append(group)
            left -= int(sizes_G[group])
    if not chosen and most > 0:
        chosen.append(min(groups, key=lambda group: sizes_G[group]))
    return chosen
