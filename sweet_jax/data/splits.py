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
from sweet_jax.data.examples import Examples, RawTask, Table
from sweet_jax.data.hold_out import LEAST_TEXTS, check_class_sizes, hold_out
from sweet_jax.data.rows import quote
from sweet_jax.settings.fields import AUTO, DataSettings, Settings

# At most this share of the training rows is held out for calibration.
_HELD_OUT_SHARE = 5
# Rows that calibration takes by default, whether labels are read or not.
USUAL_CALIBRATION = 1000
# If a fifth of the training rows is less, none is held out by default: a few rows do
# not fit temperatures, but are missed in training (docs/few-shot.md).
_LEAST_CALIBRATION, _LEAST_PER_CLASS = 50, 4
_FIXED_SEED = 0
_FROM_VALIDATION = "validation split"
_TEXTS_OF_VALIDATION = "validation split, no labels"
_TEXTS_OF_POOL = "training rows that are not drawn, no labels"
_FROM_TEST = "the test rows"


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
        origin["calibration"] = _FROM_TEST
        notes.append(
            "faithful_release: temperatures and learning-to-exit ranges are fitted on"
            " all test rows, which leaks into the scores, from outputs with dropout on,"
            " as in the released code; thresholds for a speed-up, which that code does"
            " not choose, are chosen on the test rows, by their cost alone"
        )
        if "all" in raw.splits:  # No published train split: keep the usual pool.
            asked = settings.data.calibration_examples
            asked = asked if asked > 0 else USUAL_CALIBRATION
            pool, _ = _hold_out_calibration(raw, pool, asked, [])
    else:
        pool, calibration = _take_labelled(
            raw, pool, validation, settings.data, notes, origin
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
        calibration = _take_unlabelled(pool, train, validation, test, notes, origin)
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


def assign_parts(labels: Int[np.ndarray, " N"]) -> Int32[np.ndarray, " N"]:
    """Returns 0 or 1 for each row: half each, within each class and in all."""
    order = np.random.default_rng(_FIXED_SEED).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    part = np.empty(len(labels), np.int32)
    # Alternates across classes: parts differ by at most 1 in each class and in all.
    part[by_class] = np.arange(len(labels)) % 2
    return part


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
        order = np.random.default_rng(_FIXED_SEED).permutation(len(rows))
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
    if splits.origin["calibration"] == _FROM_TEST:  # It has its own note.
        del sets["calibration"]
    elif splits.origin["calibration"] in (_FROM_VALIDATION, _TEXTS_OF_VALIDATION):
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


def _take_labelled(
    raw: RawTask,
    pool: Examples,
    validation: Examples | None,
    settings: DataSettings,
    notes: list[str],
    origin: dict[str, str],
) -> tuple[Examples, Examples | None]:
    """Returns (train pool, labelled calibration rows); None: there are none.

    Args:
        raw: the task's rows as published.
        pool: the training rows without test rows.
        validation: validation rows that are not the test rows, or None.
        settings: the number of calibration rows.
        notes: receives what a reader must know.
        origin: receives where the rows come from.
    """
    asked = settings.calibration_examples
    share = len(pool) // _HELD_OUT_SHARE
    if asked == AUTO:
        asked = USUAL_CALIBRATION
        needed = max(_LEAST_CALIBRATION, _LEAST_PER_CLASS * len(raw.label_names))
        if validation is None and share < needed:
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
        pool, calibration = _hold_out_calibration(raw, pool, asked, notes)
    else:
        origin["calibration"] = _FROM_VALIDATION
        calibration = _take_validation(validation, asked, notes)
    if len(calibration) < 2:
        raise ValueError(
            f"{len(calibration)} calibration rows are too few: add training rows, give"
            " data.validation_file, or set data.calibration_examples=0"
        )
    return pool, calibration


def _take_unlabelled(
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
        rows, origin["calibration"] = validation, _TEXTS_OF_VALIDATION
    elif len(left) >= least:
        rows, origin["calibration"] = left, _TEXTS_OF_POOL
    else:
        rows, origin["calibration"] = test, _FROM_TEST
    # Not stratified, which would read labels.
    order = np.random.default_rng(_FIXED_SEED).permutation(len(rows))
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
    order = order_stratified(validation.labels, np.random.default_rng(_FIXED_SEED))
    return validation.select(np.sort(order[:asked]))


def _hold_out_calibration(
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
            order = order_stratified(rows.labels, np.random.default_rng(_FIXED_SEED))
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
