"""The comparison with little data: its rows, its recipes, its record."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.few_data import choose_rows, pack, parse_recipe, split_pool, unpack
from benchmarks.few_data_setfit import count_steps
from benchmarks.few_data_table import compare
from benchmarks.few_data_tasks import Row, Rows, drop_seen, format_csv

SIZES = {"rare": 5, "usual": 60, "common": 135}
ROWS = [
    {"text": f"{label} {i}", "label": label}
    for label, n in SIZES.items()
    for i in range(n)
]


def list_texts(rows: list[dict[str, str]]) -> set[str]:
    return {row["text"] for row in rows}


def test_calibration_is_a_fifth_and_apart_from_all_training_rows():
    pool, calibration = split_pool(ROWS)
    assert len(calibration) == 40
    assert list_texts(pool).isdisjoint(list_texts(calibration))
    assert list_texts(pool) | list_texts(calibration) == list_texts(ROWS)
    assert set(Counter(row["label"] for row in calibration)) == set(SIZES)


def test_shots_count_rows_per_class_and_sizes_are_nested():
    few, more = (choose_rows(ROWS, size, seed=3) for size in ("4x", "8x"))
    counts = Counter(row["label"] for row in more)
    assert counts == {"rare": 5, "usual": 8, "common": 8}
    assert list_texts(few) < list_texts(more)
    assert list_texts(few) != list_texts(choose_rows(ROWS, "4x", seed=4))


def test_a_number_of_rows_is_stratified_and_nested():
    few, more = (choose_rows(ROWS, size, seed=3) for size in ("40", "80"))
    assert list_texts(few) < list_texts(more)
    counts = Counter(row["label"] for row in few)
    assert all(abs(counts[label] - n / 5) <= 1 for label, n in SIZES.items())


@pytest.mark.parametrize(
    ("least_steps", "num_rows", "num_epochs"),
    [(0, 98, 3), (300, 98, 43), (300, 2500, 3)],
)
def test_a_recipe_trains_until_it_has_its_steps(least_steps, num_rows, num_epochs):
    settings = parse_recipe(f"probe:5e-5:1e-3:{least_steps}:best", num_rows)
    assert settings == {
        "exits.init": "probe",
        "encoder_learning_rate": 5e-5,
        "exit_learning_rate": 1e-3,
        "num_epochs": num_epochs,
        "contrastive_epochs": 0,
        "select": "best",
    }
    filled = parse_recipe(f"probe:5e-5:1e-3:{least_steps}:best:contrastive", num_rows)
    assert filled["contrastive_epochs"] + filled["num_epochs"] == num_epochs
    assert filled["num_epochs"] == 3
    more = parse_recipe(f"probe:5e-5:1e-3:{least_steps}:best:20", num_rows)
    assert more["num_epochs"] == num_epochs
    assert more["contrastive_epochs"] == (3 if num_rows == 98 else 1)
    assert parse_recipe("random:1e-4:1e-3:0:last", 98)["exits.init"] == "random"


def test_training_rows_that_are_tested_are_left_out():
    train = [Row("A  text", "x"), Row(" ", "x"), Row("another", "y")]
    assert drop_seen(Rows(train, [Row("a text", "y")])).train == [Row("another", "y")]


def test_pairs_have_two_columns():
    data = format_csv([Row('one "1"\ttwo', "x")], ("sentence1", "sentence2"))
    assert data == b'sentence1,sentence2,label\n"one ""1""",two,x\n'


def test_a_difference_is_that_of_the_recorded_answers():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 3, 2, 101)) < 0.6

    def record(correct: np.ndarray) -> list[dict[str, object]]:
        return [
            {"seed": seed, "num_test_rows": 101, "correct": [pack(row) for row in rows]}
            for seed, rows in enumerate(correct)
        ]

    assert (unpack(pack(ours[0, 0]))[:101] == ours[0, 0]).all()
    differences = compare(record(ours), record(theirs))
    expected = (ours.mean(2) - theirs[:, -1:].mean(2)).mean(0)
    for (mean, interval), difference in zip(differences, expected, strict=True):
        assert mean == pytest.approx(difference)
        assert interval is not None
        assert interval.low < mean < interval.high


@pytest.mark.parametrize(
    ("shots", "classes", "steps"), [(8, 6, 120), (16, 6, 480), (16, 2, 34)]
)
def test_setfits_default_steps_are_counted(shots, classes, steps):
    """As its trainer reported them for these rows."""
    labels = [str(i % classes) for i in range(shots * classes)]
    assert count_steps(labels) == steps
