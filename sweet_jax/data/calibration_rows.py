"""Chooses the calibration rows of a run, with or without their labels."""

import dataclasses

import numpy as np
from jaxtyping import Int, Int32

from sweet_jax.data.examples import Examples, RawTask
from sweet_jax.data.hold_out import FIXED_SEED, hold_out, order_stratified
from sweet_jax.settings.fields import AUTO, Settings

# At most this share of the training rows is held out for calibration.
_HELD_OUT_SHARE = 5
# Rows that calibration takes by default, whether labels are read or not.
USUAL_CALIBRATION = 1000
# If a fifth of the training rows is less, none is held out by default: a few rows do
# not fit temperatures, but are missed in training (docs/few-shot.md).
_LEAST_CALIBRATION, _LEAST_PER_CLASS = 50, 4
FROM_VALIDATION = "validation split"
TEXTS_OF_VALIDATION = "validation split, no labels"
_TEXTS_OF_POOL = "training rows that are not drawn, no labels"
FROM_TEST = "the test rows"


def assign_parts(labels: Int[np.ndarray, " N"]) -> Int32[np.ndarray, " N"]:
    """Returns 0 or 1 for each row: half each, within each class and in all."""
    order = np.random.default_rng(FIXED_SEED).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(len(labels), np.int32)
    # Alternates across classes: parts differ by at most 1 in each class and in all.
    part[by_class] = np.arange(len(labels)) % 2
    return part


def take_labelled(
    raw: RawTask,
    pool: Examples,
    validation: Examples | None,
    settings: Settings,
    notes: list[str],
    origin: dict[str, str],
) -> tuple[Examples, Examples | None]:
    """Returns (train pool, labelled calibration rows); None: there are none.

    Args:
        raw: the task's rows as published.
        pool: the training rows without test rows.
        validation: validation rows that are not the test rows, or None.
        settings: the number of calibration rows; whether training reads them.
        notes: receives what a reader must know.
        origin: receives where the rows come from.
    """
    asked = settings.data.calibration_examples
    share = len(pool) // _HELD_OUT_SHARE
    if asked == AUTO:
        asked = USUAL_CALIBRATION
        needed = max(_LEAST_CALIBRATION, _LEAST_PER_CLASS * len(raw.label_names))
        reads_labels = settings.train.select == "best"
        if validation is None and share < needed and not reads_labels:
            notes.append(
                f"all {len(pool)} training rows may be trained on: a fifth of them,"
                f" {share}, would be too few to calibrate on ({needed} are needed by"
                " default)"
            )
            return pool, None
    if asked == 0:
        return pool, None
    if validation is None:
        origin["calibration"] = "training rows that are never trained on"
        pool, calibration = hold_out_calibration(raw, pool, asked, notes)
    else:
        origin["calibration"] = FROM_VALIDATION
        calibration = _take_validation(validation, asked, notes)
    if len(calibration) < 2:
        raise ValueError(
            f"{len(calibration)} calibration rows are too few: add training rows, give"
            " data.validation_file, or set data.calibration_examples=0"
        )
    return pool, calibration


def take_unlabelled(
    pool: Examples,
    train: Examples,
    validation: Examples | None,
    test: Examples,
    notes: list[str],
    origin: dict[str, str],
) -> Examples:
    """Returns calibration rows without their labels.

    They are validation rows, or training rows that are not drawn, or if there are too
    few of these, the test rows. All labels are 0, so that nothing can read them.
    """
    least = min(_LEAST_CALIBRATION, len(test))
    left = pool.select(np.flatnonzero(~np.isin(pool.row_ids, train.row_ids)))
    if validation is not None:
        rows, origin["calibration"] = validation, TEXTS_OF_VALIDATION
    elif len(left) >= least:
        rows, origin["calibration"] = left, _TEXTS_OF_POOL
    else:
        rows, origin["calibration"] = test, FROM_TEST
    # Not stratified, which would read labels.
    order = np.random.default_rng(FIXED_SEED).permutation(len(rows))
    rows = rows.select(np.sort(order[:USUAL_CALIBRATION]))
    notes.append(
        f"no label outside of the {len(train)} training rows is used to calibrate:"
        " temperatures are 1, so probabilities may be over- or underconfident, and"
        f" thresholds follow from the cost on {len(rows)} rows"
        f" ({origin['calibration']}); accuracy losses cannot be promised"
    )
    return dataclasses.replace(rows, labels=np.zeros_like(rows.labels))


def _take_validation(validation: Examples, asked: int, notes: list[str]) -> Examples:
    if asked > len(validation):
        notes.append(
            f"the validation split has {len(validation)} rows: all are calibration"
            f" examples (data.calibration_examples={asked})"
        )
    order = order_stratified(validation.labels, np.random.default_rng(FIXED_SEED))
    return validation.select(np.sort(order[:asked]))


def hold_out_calibration(
    raw: RawTask, rows: Examples, asked: int, notes: list[str]
) -> tuple[Examples, Examples]:
    """Returns (train pool, calibration rows).

    The number does not depend on `max_train_examples`, so that runs of different sizes
    have the same calibration rows and nested training rows.
    """
    if raw.splits.keys() == {"train"}:  # As the test rows were split off.
        least = max(len(np.unique(rows.labels)), len(rows) // _HELD_OUT_SHARE)
        pool, held = hold_out(rows, min(asked, least), 1)
    else:
        taken = min(asked, max(len(rows) // _HELD_OUT_SHARE, 2))
        if "all" in raw.splits:
            order = np.arange(len(rows))  # Already permuted by `_take_test`.
        else:
            order = order_stratified(rows.labels, np.random.default_rng(FIXED_SEED))
        pool, held = rows.select(order[taken:]), rows.select(order[:taken])
    if len(held) < asked:
        notes.append(
            f"{len(held)} calibration examples (data.calibration_examples={asked}): at"
            f" most a fifth of the {len(rows)} training rows is held out"
        )
    if "all" not in raw.splits:
        notes.append(
            f"no validation rows are free: calibration takes {len(held)} training rows"
            " that are never trained on"
        )
    return pool, held
