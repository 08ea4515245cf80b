"""Files of arrays: what was written comes back, what nobody wrote is refused."""

import dataclasses
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweet_jax import arrays
from sweet_jax.arrays import ArraySpec, LogitBank, load_npz, save_npz
from sweet_jax.system.files import FileError

_SPECS = {
    "x": ArraySpec("f", ("N", 3)),
    "y": ArraySpec("i", ("N",), optional=True),
    "z": ArraySpec("U", (), optional=True),
}


def _make_bank(**changes: Any) -> LogitBank:
    bank = LogitBank(
        logits=np.ones((4, 2, 3), np.float32),
        labels=np.array([0, 1, 2, 0], np.int32),
        weights=np.ones(4, np.float32),
        row_ids=np.arange(4),
        part=np.array([0, 1, 0, 1], np.int32),
        lte=np.full((4, 2), 0.5, np.float32),
    )
    return dataclasses.replace(bank, **changes)


def _npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Returns a .npy file of any header."""
    return (
        b"\x93NUMPY"
        + version
        + len(header).to_bytes(2, "little")
        + (header.encode() + data)
    )


def _write_zip(path: Path, compression: int = 0, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_arrays_come_back(tmp_path: Path) -> None:
    saved = {"x": np.ones((2, 3), np.float32), "y": np.arange(2), "z": np.array("é")}
    save_npz(tmp_path / "a.npz", saved)
    loaded = load_npz(tmp_path / "a.npz", _SPECS)
    for name, array in saved.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    save_npz(tmp_path / "a.npz", {"x": np.ones((2, 3))})
    assert list(load_npz(tmp_path / "a.npz", _SPECS)) == ["x"]


_HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_npy(_HEADER % ("<f4", (2**40, 3))), "x is cut short"),
        (_npy(_HEADER % ("<f4", (2, 3)), b"\0" * 23), "x is cut short"),
        (_npy(_HEADER % ("<f4", (2, 3)), b"\0" * 25), "x is cut short or too long"),
        (_npy(_HEADER % ("<f4", (2, -3))), r"x has shape \(2, -3\), expected"),
        (_npy(_HEADER % ("<f4", (2, 4))), r"x has shape \(2, 4\), expected \(N, 3\)"),
        (_npy(_HEADER % ("<f4", (2**10_000, 4))), r"damaged"),
        (_npy(_HEADER % ("<f4", "(2,3,")), "damaged"),
        (_npy(_HEADER % ("|O", (2, 3)), pickle.dumps(1)), "x is of type object"),
        (_npy(_HEADER % (">f4", (2, 3)), b"\0" * 24), "x is of type >f4"),
        (_npy(_HEADER % ("<i4", (2, 3)), b"\0" * 24), "x is of type int32"),
        (_npy("(" * 9999), "damaged"),
        (_npy("{[]: 1}"), "x has a malformed header"),
        (_npy("", version=b"\x02\x00"), r"x has .npy version \(2, 0\)"),
        (b"no array", "damaged"),
        (b"", "damaged"),
    ],
    ids=range(15),
)
def test_an_array_that_is_none_is_one_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = _write_zip(tmp_path / "a.npz", x=content)
    with pytest.raises(FileError, match=f"{reason}.*: take another") as error:
        load_npz(path, _SPECS, "take another")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def _dump(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def test_a_bug_of_ours_is_not_taken_for_damage(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: Any) -> None:
        raise TypeError("ours")

    monkeypatch.setattr(arrays, "_check_header", fail)
    path = _write_zip(tmp_path / "a.npz", x=_dump(np.ones((2, 3))))
    with pytest.raises(TypeError, match="ours"):
        load_npz(path, _SPECS)


def test_only_wanted_arrays_that_fit_each_other_are_read(tmp_path: Path) -> None:
    x, y, path = _dump(np.ones((2, 3))), _dump(np.arange(3)), tmp_path / "a.npz"
    for members, reason in (
        ({"y": y}, "has no x"),
        ({"x": x, "y": y}, r"y has shape \(3,\), expected \(2\)"),
        ({"x": x, "../x": x}, r"'\.\./x\.npy' is unknown"),
        ({"x": x, "\x1b[2J": x}, r"x1b"),
    ):
        with pytest.raises(FileError, match=reason) as error:
            load_npz(_write_zip(path, **members), _SPECS)
        assert str(error.value).isprintable()
    _write_zip(path, x=x)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(match="Duplicate"):
        file.writestr("x.npy", x)
    with pytest.raises(FileError, match="a duplicate"):
        load_npz(path, _SPECS)


def test_a_compressed_bank_is_read_and_a_bomb_refused(tmp_path: Path) -> None:
    bomb = _dump(np.zeros((10**6, 3)))
    path = _write_zip(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, x=bomb)
    assert path.stat().st_size < len(bomb) / 100
    with pytest.raises(FileError, match="expands to more than 16 times its size"):
        load_npz(path, _SPECS)
    noise = np.random.default_rng(0).normal(size=(100, 3))
    _write_zip(path, zipfile.ZIP_DEFLATED, x=_dump(noise))
    np.testing.assert_array_equal(load_npz(path, _SPECS)["x"], noise)


def test_every_flipped_or_missing_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "bank.npz"
    _make_bank().save(path, "abc")
    data = path.read_bytes()
    rng, whole = np.random.default_rng(0), LogitBank.load(path)
    for place in rng.integers(0, len(data), 200).tolist():
        path.write_bytes(data[:place])
        with pytest.raises(FileError):
            LogitBank.load(path)
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            bank = LogitBank.load(path)
        except FileError:
            continue
        # Times and attributes of a zip's entries say nothing of the arrays.
        for field in dataclasses.fields(bank):
            np.testing.assert_array_equal(
                getattr(bank, field.name), getattr(whole, field.name)
            )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"logits": np.full((4, 2, 3), np.nan, np.float32)},
            "24 logits are not finite",
        ),
        ({"lte": np.full((4, 2), np.inf, np.float32)}, "8 lte are not finite"),
        ({"labels": np.array([0, 1, 3, 0])}, "labels outside of 0 to 2"),
        ({"labels": np.array([0, 1, -1, 0])}, "labels outside of 0 to 2"),
        ({"part": np.array([0, 1, 3, 0])}, "parts other than 0 to 2"),
        ({"weights": -np.ones(4, np.float32)}, "weights below 0"),
        ({"weights": np.full(4, np.nan, np.float32)}, "4 weights are not finite"),
    ],
)
def test_a_bank_holds_what_can_be_evaluated(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    _make_bank(**changes).save(tmp_path / "bank.npz")
    with pytest.raises(FileError, match=f"{reason}.*: evaluate again"):
        LogitBank.load(tmp_path / "bank.npz", "evaluate again")


def test_a_bank_has_rows(tmp_path: Path) -> None:
    _make_bank().select(np.zeros(4, bool)).save(tmp_path / "bank.npz")
    with pytest.raises(FileError, match=r"logits of shape \(0, 2, 3\)"):
        LogitBank.load(tmp_path / "bank.npz")
