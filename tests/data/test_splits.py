"""Test and calibration rows are fixed; the seed only chooses among training rows."""

import dataclasses
import itertools

import numpy as np
import pytest
from tiny_splits import (
    SOURCES,
    get_ids,
    make_few_shot,
    make_raw,
    make_rows,
    make_settings,
)

from sweet_jax.data.examples import RawTask
from sweet_jax.data.notes import list_keys
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import make_splits
from sweet_jax.data.tasks import get_task
from sweet_jax.settings.from_config import from_config_dict


@pytest.fixture(scope="module")
def rotten_tomatoes():
    return load_task(from_config_dict({}).data)


def test_the_embedded_task_has_the_promised_sizes(rotten_tomatoes):
    splits = make_splits(rotten_tomatoes, make_settings(train=0, calibration=1000))
    assert (len(splits.test), len(splits.calibration), len(splits.train)) == (
        1530,
        1000,
        6000,
    )
    ids = [get_ids(part) for part in (splits.test, splits.calibration, splits.train)]
    assert len(set.union(*ids)) == 8530
    # A permutation with the fixed seed 0 decides, and the notes have nothing to say.
    order = np.random.default_rng(0).permutation(8530)
    np.testing.assert_array_equal(splits.test.row_ids, order[:1530])
    np.testing.assert_array_equal(splits.calibration.row_ids, order[1530:2530])
    assert splits.notes == ()
    assert set(splits.origin) == {"train", "calibration", "test"}


def test_imdb_has_the_same_test_size():
    raw = load_task(from_config_dict({"data": {"task": "imdb"}}).data)
    splits = make_splits(raw, make_settings(train=0, calibration=1000))
    sizes = (len(splits.test), len(splits.calibration), len(splits.train))
    assert sizes == (1530, 1000, 22470)


def test_rows_keep_their_text_and_label(rotten_tomatoes):
    rows = rotten_tomatoes.splits["all"]
    splits = make_splits(rotten_tomatoes, make_settings())
    for part in (splits.train, splits.calibration, splits.test):
        for text, label, row_id in zip(
            part.texts, part.labels, part.row_ids, strict=True
        ):
            assert rows.texts[row_id] == text
            assert rows.labels[row_id] == label


@pytest.mark.parametrize(
    "sizes",
    [
        {"all": 1000},
        {"train": 600, "test": 100},
        {"train": 600, "validation": 80},
        {"train": 600, "validation": 80, "test": 100},
        {"train": 600},
    ],
)
def test_only_the_train_rows_depend_on_the_run(sizes):
    raw = make_raw(**sizes)
    base = make_splits(raw, make_settings())
    runs = [
        make_settings(seed=1),
        make_settings(train=17),
        make_settings(method="early_exit"),
    ]
    for run in runs:
        splits = make_splits(raw, run)
        assert splits.test.texts == base.test.texts
        assert splits.calibration.texts == base.calibration.texts
        np.testing.assert_array_equal(splits.part, base.part)
    other_sizes = make_splits(raw, make_settings(calibration=20))
    assert other_sizes.test.texts == base.test.texts
    assert make_splits(raw, make_settings()).train.texts == base.train.texts
    assert make_splits(raw, make_settings(seed=1)).train.texts != base.train.texts


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"all": 1000},
        {"train": 600, "test": 100},
        {"train": 600, "validation": 80},
        {"train": 600, "validation": 80, "test": 100},
        {"train": 600},
    ],
)
def test_no_row_is_trained_on_and_measured(sizes, faithful):
    run = make_settings(train=6000, faithful_release=faithful)
    splits = make_splits(make_raw(**sizes), run)
    train = set(splits.train.texts)
    assert not train & set(splits.test.texts)
    assert not train & set(splits.calibration.texts)
    if not faithful:
        assert not set(splits.calibration.texts) & set(splits.test.texts)


@pytest.mark.parametrize("seed", [0, 7])
def test_train_rows_are_nested_and_stratified(rotten_tomatoes, seed):
    chosen = [
        make_splits(rotten_tomatoes, make_settings(seed=seed, train=n)).train
        for n in (250, 500, 2000)
    ]
    for small, large in itertools.pairwise(chosen):
        assert get_ids(small) < get_ids(large)
    for rows in chosen:
        assert abs(rows.labels.mean() - 0.5) < 0.02


def test_a_published_test_split_is_used_whole():
    splits = make_splits(make_raw(train=600, validation=80, test=33), make_settings())
    assert get_ids(splits.test) == set(range(33))
    assert splits.test.texts[0] == "test 0"
    assert all(text.startswith("validation") for text in splits.calibration.texts)
    assert len(splits.calibration) == 50
    assert splits.notes == ()


def test_glue_is_tested_on_validation_and_says_so():
    raw = make_raw("rte", train=2490, validation=277)
    splits = make_splits(raw, make_settings(train=2000, calibration=1000))
    assert splits.test.texts == raw.splits["validation"].texts
    assert all(text.startswith("train") for text in splits.calibration.texts)
    # At most a fifth of RTE's 2,490 rows is held out; the rest trains.
    assert (len(splits.calibration), len(splits.train)) == (498, 1992)
    notes = " | ".join(splits.notes)
    assert "the validation split is used as test" in notes
    assert "498 calibration examples (data.calibration_examples=1000): at most" in notes
    assert "calibration takes 498 training rows" in notes
    assert "all 1992 training rows are used (data.max_train_examples=2000)" in notes
    assert splits.origin["test"] == "validation split"


def test_mnli_keeps_its_second_test_set():
    raw = make_raw("mnli", train=600, validation=50, validation_mismatched=60)
    splits = make_splits(raw, make_settings())
    assert len(splits.test) == 50
    assert list(splits.extra_tests) == ["validation_mismatched"]
    assert splits.extra_tests["validation_mismatched"].texts[0] == (
        "validation_mismatched 0"
    )


def test_rows_without_any_test_split_are_held_out_and_said():
    splits = make_splits(make_raw(train=600), make_settings())
    assert len(splits.test) == 120
    assert splits.notes[0] == (
        "no test rows were given: 120 of the 600 rows of file are split off as test,"
        " stratified by class, with a fixed seed; rows of the same text stay together"
    )
    assert splits.origin["test"] == "120 rows split off file, stratified"


def test_a_text_never_stands_on_two_sides_of_what_is_split_off():
    rows = make_rows(600)
    texts = [
        text.replace("row", "  ROW" if i % 3 else "row")
        for i, text in enumerate(rows.texts)
    ]
    texts = [texts[i // 2].upper() if i % 5 else texts[i // 2] for i in range(600)]
    raw = RawTask(
        get_task("file"),
        {"train": dataclasses.replace(rows, texts=tuple(texts))},
        ("0", "1"),
    )
    splits = make_splits(raw, make_settings(train=0))
    sides = [
        set(list_keys(part.texts, None))
        for part in (splits.train, splits.calibration, splits.test)
    ]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 300
    assert not any("overlap" in note for note in splits.notes)
    assert sum(map(len, (splits.train, splits.calibration, splits.test))) == 600


def test_every_class_is_trained_calibrated_and_tested():
    labels = np.array([0] * 590 + [1] * 3 + [2] * 7, np.int32)
    rows = dataclasses.replace(make_rows(600), labels=labels)
    raw = RawTask(get_task("file"), {"train": rows}, ("a", "b", "c"))
    splits = make_splits(raw, make_settings(train=0, calibration=4))
    for part in (splits.train, splits.calibration, splits.test):
        assert np.unique(part.labels).tolist() == [0, 1, 2]
    assert len(splits.test) == 120
    rows = rows.select(np.arange(592))
    with pytest.raises(ValueError, match=r"\('b' has 2\): 3 are needed in each"):
        make_splits(dataclasses.replace(raw, splits={"train": rows}), make_settings())


def test_the_size_of_the_test_part_can_be_set():
    raw = make_raw(train=600)
    for fields, size in (
        ({"test_percent": 5.0}, 30),
        ({"max_test_examples": 17}, 17),
        ({"test_percent": 90.0, "max_test_examples": 10_000}, 540),
    ):
        run = make_settings(train=0)
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, **fields))
        splits = make_splits(raw, run)
        assert len(splits.test) == size
        assert sum(map(len, (splits.train, splits.calibration, splits.test))) == 600
    run = dataclasses.replace(
        run, data=dataclasses.replace(run.data, max_test_examples=1)
    )
    with pytest.raises(ValueError, match=r"file has 2 classes, .* allowed is 2 or"):
        make_splits(raw, run)
    with pytest.raises(ValueError, match="test_percent=90 is for data without test"):
        make_splits(make_raw(train=600, test=30), run)


def test_faithful_release_takes_the_first_rows_and_leaks(rotten_tomatoes):
    run = make_settings(train=6000, calibration=1000, faithful_release=True)
    splits = make_splits(rotten_tomatoes, run)
    usual = make_splits(rotten_tomatoes, make_settings(train=0, calibration=1000))
    assert splits.test.texts == usual.test.texts
    assert splits.calibration.texts == splits.test.texts
    assert get_ids(splits.train) == get_ids(usual.train)
    np.testing.assert_array_equal(splits.train.row_ids, np.sort(usual.train.row_ids))
    assert any("leaks" in note for note in splits.notes)
    assert np.bincount(splits.part).tolist() == [765, 765]


def test_faithful_release_takes_a_published_train_split_from_its_start():
    run = make_settings(seed=3, train=6000, faithful_release=True)
    for sizes in ({"validation": 50}, {"validation": 50, "test": 40}):
        raw = make_raw("file", train=9000, **sizes)
        splits = make_splits(raw, run)
        assert splits.train.row_ids.tolist() == list(range(6000))
        assert splits.calibration.texts == splits.test.texts


def test_training_rows_of_one_class_are_an_error():
    raw = make_raw(train=600, test=50)
    with pytest.raises(ValueError, match=r"max_train_examples=1 leaves .* one class"):
        make_splits(raw, make_settings(train=1))


def test_too_few_rows_are_an_error():
    raw = make_raw(all=4)
    with pytest.raises(ValueError, match="4 rows are too few to hold test rows out"):
        make_splits(raw, make_settings())
    with pytest.raises(ValueError, match="1 calibration rows are too few"):
        make_splits(make_raw(train=9, validation=1, test=5), make_settings())


def test_pairs_stay_together():
    raw = make_raw("rte", train=200, validation=20)
    with_pairs = {
        name: dataclasses.replace(rows, pairs=tuple(f"{t} b" for t in rows.texts))
        for name, rows in raw.splits.items()
    }
    splits = make_splits(dataclasses.replace(raw, splits=with_pairs), make_settings())
    for part in (splits.train, splits.calibration, splits.test):
        assert part.pairs == tuple(f"{text} b" for text in part.texts)


@pytest.mark.parametrize("sizes", SOURCES)
@pytest.mark.parametrize("calibration", [-1, 40])
def test_shots_are_rows_of_each_class_nested_over_numbers(sizes, calibration):
    raw = make_raw(**sizes)
    made = [
        make_splits(raw, make_few_shot(n, calibration_examples=calibration))
        for n in (1, 8, 16, 64)
    ]
    for splits, n in zip(made, (1, 8, 16, 64), strict=True):
        assert np.bincount(splits.train.labels).tolist() == [n, n]
        assert splits.origin["train"].endswith(f" training rows, {n} of each class")
        assert splits.reads_calibration_labels == (calibration > 0)
        held = set(splits.calibration.texts) | set(splits.test.texts)
        assert not held & set(splits.train.texts)
    for small, large in itertools.pairwise(made):
        assert get_ids(small.train) < get_ids(large.train)
    other = make_splits(raw, make_few_shot(8, seed=1, calibration_examples=calibration))
    assert get_ids(other.train) != get_ids(made[1].train)


def test_a_class_with_fewer_rows_gives_all_and_says_so():
    labels = np.array([0] * 90 + [1] * 5 + [2] * 25, np.int32)
    rows = dataclasses.replace(make_rows(120), labels=labels)
    splits = {"train": rows, "test": make_rows(20, mark="test")}
    raw = RawTask(get_task("file"), splits, ("a", "b", "c"))
    made = make_splits(raw, make_few_shot(8))
    assert np.bincount(made.train.labels).tolist() == [8, 5, 8]
    assert (
        "data.shots=8: 1 of 3 classes have fewer training rows ('b' has 5): all of"
        " theirs are used" in made.notes
    )


def test_more_calibration_labels_than_training_rows_are_said():
    settings = make_few_shot(8, calibration_examples=100)
    notes = make_splits(make_raw(train=600, test=30), settings).notes
    line = "calibration uses 100 labelled rows beside the 16 training rows"
    assert any(note.startswith(line) for note in notes)
