"""Exported folders come from anyone: the loader refuses in one line what is none."""

import ast
import json
import shutil
import stat
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from exported_folders import check_refused, read_manifest, sign

from sweet_jax.arrays import save_npz
from sweet_jax.export.folder import export_folder
from sweet_jax.standalone import checks
from sweet_jax.standalone.loader import ExportedClassifier


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "out"
    export_folder(tiny_model, out, pytorch=True)
    return out


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "out"))


def test_every_file_is_covered(exported):
    sums = json.loads((exported / "checksums.json").read_text())
    found = {
        path.relative_to(exported).as_posix()
        for path in exported.rglob("*")
        if path.is_file()
    }
    assert found == sums.keys() | {"checksums.json"}
    for name in ("manifest.json", "loader.py", "checks.py", "pytorch/reader.py"):
        assert name in sums
    assert "pytorch/encoder_0/model.safetensors" in sums


def test_files_have_the_mode_of_new_ones(exported):
    modes = {
        stat.S_IMODE(path.stat().st_mode)
        for path in exported.rglob("*")
        if path.is_file()
    }
    assert modes == {0o644}


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "weights.npz", "segment_0.jaxexp", "pytorch/exits.safetensors"],
)
def test_altered_missing_and_unlisted_files(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    check_refused(folder, f"{name} (was altered or damaged|is damaged)")
    (folder / name).unlink()
    check_refused(folder, f"lacks the file {name}|{name} is missing")
    if name != "manifest.json":
        sign(folder)
        (folder / name).write_bytes(data)
        check_refused(folder, f"holds {name}, which its checksums.json does not list")


def test_no_checksums_are_no_checksums(folder):
    for content in ("{}", "[]", "[" * 100_000, '{"a": 1}', "1" * 5000):
        (folder / "checksums.json").write_text(content)
        check_refused(folder, r"checksums\.json (lists no checksums|is damaged)")
    (folder / "checksums.json").unlink()
    check_refused(folder, r"checksums\.json is missing")


def test_what_python_compiles_of_the_loader_may_lie_there(folder):
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "loader.pyc").write_bytes(b"")
    ExportedClassifier(folder)


@pytest.mark.parametrize("content", ["{}", "[]", "null", "[" * 100_000, "1" * 5000, ""])
def test_manifests_that_are_none(folder, content):
    (folder / "manifest.json").write_text(content)
    sign(folder)
    check_refused(folder, r"manifest\.json (is damaged|is not a JSON object)")


# Of every kind, and none is right anywhere.
_WRONG = (
    None,
    True,
    -1,
    0.5,
    2**40,
    10**4000,
    "\x1b[2J",
    [],
    [[]],
    {},
    {"a": {}},
    [{}],
)


@pytest.mark.parametrize("name", checks._FIELDS)
def test_every_field_has_a_type_and_limits(folder, name):
    manifest = read_manifest(folder)
    for wrong in _WRONG:
        (folder / "manifest.json").write_text(json.dumps(manifest | {name: wrong}))
        check_refused(folder, name if name != "schema" else "damaged|is newer than")
    del manifest[name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    check_refused(folder, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "out is newer than this loader: update sweet_jax"),
        ({"temperatures": [0, 1]}, "temperatures"),
        ({"temperatures": [1]}, "temperatures: not one per exit"),
        ({"label_names": ["a", "a"]}, "label_names"),
        ({"label_names": ["a", "b", "c"]}, "programs: the logits of 0"),
        ({"exit_layers": [1, 0]}, "exit_layers"),
        ({"exit_layers": [0, 1, 2]}, "member_exits"),
        ({"member_exits": [[0]]}, "member_exits"),
        ({"buckets": [8, 16]}, "buckets"),
        ({"buckets": [8, 8, 32]}, "buckets"),
        ({"max_length": 64}, "buckets"),
        ({"threshold_range": [1, 0.5]}, "threshold_range"),
        ({"threshold_range": [0.5, 1, 1]}, "threshold_range"),
        ({"limits": {"token_ids": 5, "mask": 2}}, "limits"),
        ({"weights": {"x": [2**31, 2**31]}}, "weights"),
        ({"pooling": "max"}, "pooling"),
    ],
)
def test_manifests_out_of_range(folder, changes, message):
    sign(folder, read_manifest(folder) | changes)
    check_refused(folder, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../segment_0.jaxexp"}, "the file of 0"),
        ({"file": "/dev/zero"}, "the file of 0"),
        ({"file": "loader.py"}, "the file of 0"),
        ({"weights": ["x"]}, "the weights of 0"),
        ({"inputs": [{"name": "x", "shape": [1], "dtype": "int32"}]}, "inputs of 0"),
        ({"outputs": [{"name": "x", "shape": [1], "dtype": "int32"}]}, "logits of 0"),
        ({"outputs": [{"name": "x", "shape": [1], "dtype": "O"}]}, "programs"),
        ({"more": 1}, "programs"),
    ],
)
def test_programs_that_do_not_fit(folder, changes, message):
    manifest = read_manifest(folder)
    manifest["programs"][0] |= changes
    sign(folder, manifest)
    check_refused(folder, message)


def test_weights_that_are_none(folder):
    path = folder / "weights.npz"
    with np.load(path) as file:
        arrays = dict(file)
    name = "exits/exit_0/classifier/bias"
    for values, message in (
        (np.full(2, np.nan, "f4"), f"2 values of '{name}' are not finite"),
        (np.zeros(3, "f4"), f"'{name}' is not a float32 array of"),
        (np.zeros(2, "f8"), f"'{name}' is not a float32 array of"),
        (np.array([{}, {}], object), f"'{name}' is not a float32 array of"),
    ):
        with zipfile.ZipFile(path, "w") as file:
            for key, array in (arrays | {name: values}).items():
                with file.open(f"{key}.npy", "w") as data:
                    np.lib.format.write_array(data, array)
        sign(folder)
        check_refused(folder, message)
    save_npz(path, {key: x for key, x in arrays.items() if key != name})
    sign(folder)
    check_refused(folder, "its arrays are not those of manifest.json")
    path.write_bytes(b"PK")
    sign(folder)
    check_refused(folder, r"weights\.npz cannot be used")
    with path.open("ab") as file:
        file.truncate(1 << 40)
    check_refused(folder, r"weights\.npz is larger than any such file")


def test_what_travels_imports_only_what_it_says():
    stated = {"jax", "numpy", "torch", "transformers", "safetensors", "checks"}
    for_onnx = {"numpy", "onnxruntime", "tokenizers", "checks", "onnx_session"}
    for file in Path(checks.__file__).parent.glob("[a-z]*.py"):
        allowed = for_onnx if file.name.startswith("onnx_") else stated
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names
            assert tops <= allowed | {"sweet_jax"}, file
