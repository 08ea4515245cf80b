"""The file of constants: what it keeps, and one line for a file that does not fit."""

import numpy as np
import pytest
from papa_models import make_random_sums

from sweet_jax.analysis.papa.constants_file import StoredSums, load_sums, save_sums
from sweet_jax.arrays import save_npz
from sweet_jax.system.files import FileError

IDENTITY = {"encoder": "aa", "layout": "sane", "length": "4", "rows": "bb"}


@pytest.fixture
def path(tmp_path):
    stored = StoredSums({2: make_random_sums(2), 5: make_random_sums(5, 1)}, True, 1.5)
    save_sums(tmp_path / "constants.npz", IDENTITY, stored)
    return tmp_path / "constants.npz"


def test_sums_come_back(path):
    stored = load_sums(path, IDENTITY, "copy it again")
    assert list(stored.by_rows) == [2, 5]
    assert (stored.is_complete, stored.seconds) == (True, 1.5)
    for number, seed in ((2, 0), (5, 1)):
        expected = make_random_sums(number, seed)
        np.testing.assert_array_equal(stored.by_rows[number].sums, expected.sums)
        np.testing.assert_array_equal(stored.by_rows[number].counts, expected.counts)
        assert stored.by_rows[number].num_rows == number


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("encoder", "another encoder"),
        ("layout", "another layout"),
        ("length", "another length"),
        ("rows", "another task or other training rows"),
    ],
)
def test_constants_of_something_else_are_refused(path, field, message):
    with pytest.raises(FileError, match=rf"{message} \(.*, here other\): delete it"):
        load_sums(path, IDENTITY | {field: "other"}, "delete it")
    rest = {name: value for name, value in IDENTITY.items() if name != field}
    load_sums(path, rest, "delete it")


def test_a_truncated_file_is_refused(path):
    data = path.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(FileError, match=r"is damaged.*: delete it"):
            load_sums(path, IDENTITY, "delete it")


@pytest.mark.parametrize(
    "name", ["sums", "counts", "row_numbers", "encoder", "complete"]
)
def test_an_altered_file_is_refused(path, name):
    with np.load(path) as file:
        arrays = dict(file)
    array = arrays[name]
    arrays[name] = np.array("cc") if name == "encoder" else array + array.dtype.type(1)
    save_npz(path, arrays)
    with pytest.raises(FileError, match="was altered or damaged: delete it"):
        load_sums(path, {}, "delete it")
