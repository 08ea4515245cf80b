"""Chooses the training, calibration and test rows of a run.

Test and calibration rows depend only on the task and `data.calibration_examples`. The
run's seed only chooses rows from the train pool: stratified, and nested, so that a
smaller training set is contained in a larger one of the same seed. The paper takes the
first rows of the train split and calibrates on its test split; only `faithful_release`
does so here.

Where labelled rows are few, all of them are trained on, and calibration uses other rows
without their labels (docs/few-shot.md).
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32, Int64

from sweet_jax.arrays import UNLABELLED
from sweet_jax.data import notes as notes_lib
from sweet_jax.data.calibration_rows import (
    FROM_TEST,
    FROM_VALIDATION,
    TEXTS_OF_VALIDATION,
    USUAL_CALIBRATION,
    assign_parts,
    hold_out_calibration,
    take_labelled,
    take_unlabelled,
)
from sweet_jax.data.examples import Examples, RawTask, Table
from sweet_jax.data.hold_out import (
    FIXED_SEED,
    LEAST_TEXTS,
    check_class_sizes,
    hold_out,
    order_stratified,
)
from sweet_jax.data.rows import quote
from sweet_jax.settings.fields import DataSettings, Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The rows of a run.

    Attributes:
        train: rows to train on.
        calibration: rows for temperatures, selection and thresholds.
        part: 0 (fit) or 1 (budget) for each calibration row, half each, stratified; or
            `UNLABELLED` for all of them, whose labels are then 0.
        test: rows to report scores on; read once.
        extra_tests: further test sets by name (mnli: validation_mismatched).
        notes: what a reader of the results must know about these rows.
        origin: where the rows of train, calibration and test come from.
    """

    train: Examples
    calibration: Examples
    part: Int32[np.ndarray, " N_calibration"]
    test: Examples
    extra_tests: dict[str, Examples]
    notes: tuple[str, ...]
    origin: dict[str, str]

    @property
    def reads_calibration_labels(self) -> bool:
        """Whether the calibration rows have labels."""
        return not (self.part == UNLABELLED).all()


def make_splits(raw: RawTask, settings: Settings) -> Splits:
    """Returns the rows of a run.

    A task without a test split (GLUE publishes no test labels) is tested on its
    validation split, one without either on a fifth of its rows (at most 1,530;
    `data.test_percent`, `data.max_test_examples`). Calibration takes validation rows
    unless they are the test rows, otherwise training rows (at most a fifth) that no run
    ever trains on. With `data.shots`, or where that fifth is too few rows, it takes
    other rows and reads no labels.

    Args:
        raw: the task's rows as published.
        settings: seed, sizes and `faithful_release`.

    Raises:
        ValueError: too few rows, or training rows of one class only.
    """
    notes: list[str] = []
    origin: dict[str, str] = {}
    pool, test = _take_test(raw, settings.data, notes, origin)
    validation = raw.splits.get("validation")
    if validation is test:
        validation = None
    if settings.faithful_release:
        calibration = test
        origin["calibration"] = FROM_TEST
        notes.append(
            "faithful_release: temperatures and learning-to-exit ranges are fitted on"
            " all test rows, which leaks into the scores, from outputs with dropout on,"
            " as in the released code; thresholds for a speed-up, which that code does"
            " not choose, are chosen on the test rows, by their cost alone"
        )
        if "all" in raw.splits:  # No published train split: keep the usual pool.
            asked = settings.data.calibration_examples
            asked = asked if asked > 0 else USUAL_CALIBRATION
            pool, _ = hold_out_calibration(raw, pool, asked, [])
    else:
        pool, calibration = take_labelled(
            raw, pool, validation, settings, notes, origin
        )
    train = _choose_train(pool, raw.label_names, settings, notes)
    origin["train"] = f"{len(train)} of a pool of {len(pool)} training rows"
    if settings.data.shots:
        origin["train"] += f", {settings.data.shots} of each class"
    if calibration is not None:
        part = assign_parts(calibration.labels)
        if len(calibration) > len(train) and not settings.faithful_release:
            notes.append(
                f"calibration uses {len(calibration):,} labelled rows beside the"
                f" {len(train):,} training rows: calibrated probabilities and promises"
                f" are not those of a user who has {len(train):,} labelled rows in all"
                " (data.calibration_examples=0 reads no further label)"
            )
    else:
        calibration = take_unlabelled(pool, train, validation, test, notes, origin)
        part = np.full(len(calibration), UNLABELLED, np.int32)
    splits = Splits(
        train=train,
        calibration=calibration,
        part=part,
        test=test,
        extra_tests={
            name: raw.splits[name]
            for name in raw.task.extra_test_splits
            if name in raw.splits
        },
        notes=(*notes, *raw.notes),
        origin=origin,
    )
    return dataclasses.replace(
        splits, notes=(*splits.notes, *_describe_rows(raw, splits))
    )


def _take_test(
    raw: RawTask, settings: DataSettings, notes: list[str], origin: dict[str, str]
) -> tuple[Examples, Examples]:
    """Returns (training rows, test rows)."""
    for split in (raw.task.test_split, "validation"):
        if "all" not in raw.splits and split in raw.splits:
            _refuse_test_size(raw, split, settings)
            origin["test"] = f"{split} split"
            if split == "validation":
                notes.append("no test labels: the validation split is used as test")
            return raw.splits["train"], raw.splits[split]
    rows = raw.splits["all" if "all" in raw.splits else "train"]
    # The embedded task: 8,530 rows give 1,530 test, 1,000 calibration and 6,000 pool
    # rows.
    most = settings.max_test_examples
    num_test = min(int(len(rows) * settings.test_percent / 100), most)
    if "all" in raw.splits:
        if num_test < 1:
            raise ValueError(f"{len(rows)} rows are too few to hold test rows out")
        order = np.random.default_rng(FIXED_SEED).permutation(len(rows))
        origin["test"] = f"{num_test} of {len(rows)} rows, held out with a fixed seed"
        return rows.select(order[num_test:]), rows.select(order[:num_test])
    table = raw.tables.get("train")
    where = raw.task.name if table is None else table.where
    column = "" if table is None else table.columns.label
    check_class_sizes(rows, raw.label_names, where, column)
    num_classes = len(np.unique(rows.labels))
    if most < num_classes:
        raise ValueError(
            f"data.max_test_examples={most}: {where} has {num_classes} classes, and at"
            f" least one row of each is tested; allowed is {num_classes} or more"
        )
    pool, test = hold_out(rows, max(num_test, num_classes), LEAST_TEXTS - 1)
    origin["test"] = f"{len(test)} rows split off {where}, stratified"
    notes.append(
        f"no test rows were given: {len(test)} of the {len(rows)} rows of {where} are"
        " split off as test, stratified by class, with a fixed seed; rows of the same"
        " text stay together"
    )
    return pool, test


def _refuse_test_size(raw: RawTask, split: str, settings: DataSettings) -> None:
    """Raises ValueError if the size of a test split is set but test rows exist."""
    for name in ("test_percent", "max_test_examples"):
        value = getattr(settings, name)
        if value != getattr(DataSettings(), name):
            raise ValueError(
                f"data.{name}={value:g} is for data without test rows, but"
                f" {raw.task.name} is tested on its {split} rows: leave it out"
            )


def _describe_rows(raw: RawTask, splits: Splits) -> list[str]:
    """Returns notes on overlaps, repeats and absent classes in the sets of a run."""
    main = "all" if "all" in raw.splits else "train"
    sets = {
        "training": (splits.train, main),
        "calibration": (splits.calibration, main),
        "test": (splits.test, main),
    }
    for split, published in raw.splits.items():
        if published is splits.test:
            sets["test"] = splits.test, split
    if splits.origin["calibration"] == FROM_TEST:  # It has its own note.
        del sets["calibration"]
    elif splits.origin["calibration"] in (FROM_VALIDATION, TEXTS_OF_VALIDATION):
        sets["calibration"] = splits.calibration, "validation"
    keys, locate = {}, {}
    for name, (rows, split) in sets.items():
        keys[name] = notes_lib.list_keys(rows.texts, rows.pairs)
        locate[name] = make_locate(rows, raw.tables.get(split))
    labels = [raw.label_names[label] for label in splits.train.labels]
    found = notes_lib.describe_contradictions(
        keys["training"], labels, locate["training"]
    )
    for name in sets:
        found += notes_lib.describe_repeats(keys[name], name, locate[name])
    for name, other in itertools.combinations(reversed(sets), 2):
        found += notes_lib.describe_overlap(
            keys[name], name, keys[other], other, locate[name], locate[other]
        )
    if not splits.reads_calibration_labels:
        sets.pop("calibration", None)
    for name, (rows, _) in sets.items():
        counts = np.bincount(rows.labels, minlength=len(raw.label_names))
        found += notes_lib.describe_absent_classes(counts, name, raw.label_names)
    return found


def make_locate(rows: Examples, table: Table | None) -> notes_lib.Locate:
    """Returns a function from a row of a set to its position in the published data."""

    def locate(i: int) -> str:
        row_id = int(rows.row_ids[i])
        return f"row {row_id}" if table is None else table.locate_row_id(row_id)

    return locate


def _choose_train(
    pool: Examples, label_names: Sequence[str], settings: Settings, notes: list[str]
) -> Examples:
    asked, shots = settings.data.max_train_examples, settings.data.shots
    if asked > len(pool):
        notes.append(
            f"all {len(pool)} training rows are used (data.max_train_examples={asked})"
        )
    published = np.argsort(pool.row_ids)
    if settings.faithful_release:
        chosen = published[: asked or None]
    else:
        # From the published order, so that the choice depends only on the pool's rows
        # and the seed, not on the order of the pool.
        rng = np.random.default_rng(settings.seed)
        order = published[order_stratified(pool.labels[published], rng)]
        if shots:
            order = _take_shots(order, pool.labels, shots)
            notes += _describe_few(pool.labels, label_names, shots)
        chosen = np.sort(order[: asked or None])
    train = pool.select(chosen)
    if len(np.unique(train.labels)) < 2:
        raise ValueError(
            f"data.max_train_examples={asked} leaves training rows of only one class:"
            " raise it"
        )
    return train


def _take_shots(
    order: Int64[np.ndarray, " N"], labels: Int[np.ndarray, " N"], shots: int
) -> Int64[np.ndarray, " R"]:
    """Returns the first `shots` rows of each class, in their order."""
    labels = labels[order]
    places = [np.flatnonzero(labels == c)[:shots] for c in np.unique(labels)]
    return order[np.sort(np.concatenate(places))]


def _describe_few(
    labels: Int[np.ndarray, " N"], label_names: Sequence[str], shots: int
) -> list[str]:
    """Returns a note if classes have fewer rows than are to be drawn.

    They are not refused: the other classes are still as asked, and a user with few rows
    has no more of them.
    """
    counts_C = np.bincount(labels, minlength=len(label_names))
    few = np.flatnonzero((counts_C > 0) & (counts_C < shots))
    if not len(few):
        return []
    shown = ", ".join(
        f"{quote(label_names[int(c)])} has {counts_C[c]}" for c in few[:5]
    )
    return [
        f"data.shots={shots}: {len(few)} of {len(label_names)} classes have fewer"
        f" training rows ({shown}{', ...' * (len(few) > 5)}): all of theirs are used"
    ]
