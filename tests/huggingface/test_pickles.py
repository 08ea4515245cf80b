"""Pickled weights become safetensors: names and numbers kept, nothing else is run."""

import itertools
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_command
from pickle_payload import Payload
from recorded import load_recorded
from safetensors.numpy import load_file, save_file

from sweet_jax.huggingface.config import load_config
from sweet_jax.huggingface.pickles import check_new_folder, convert_from_torch
from sweet_jax.huggingface.safetensors import load_encoder

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return {
        name.removeprefix("tensor/"): array
        for name, array in load_recorded("bert").arrays.items()
        if name.startswith("tensor/")
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config and without weights."""
    folder = tmp_path / "source"
    folder.mkdir()
    config_text = str(load_recorded("bert").arrays["config"])
    (folder / "config.json").write_text(config_text)
    return folder


def load(folder: Path):
    return load_encoder(folder, load_config(folder), 2)


@pytest.mark.reference
def test_from_torch_converts_pickles(folder, tensors, tmp_path, capsys):
    import torch

    out = tmp_path / "out"
    (folder / "vocab.txt").write_text("a")
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    # Tied weights share memory in the pickle.
    state["cls.predictions.decoder.weight"] = state["embeddings.word_embeddings.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 0
    loaded = load(out)
    got = loaded.encoder["layer_1"]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(got, tensors[QUERY].T)
    assert (out / "vocab.txt").read_text() == "a"
    # A second time: nothing is overwritten.
    capsys.readouterr()
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 2
    assert "already" in capsys.readouterr().err


@pytest.mark.reference
def test_from_torch_reads_shards(folder, tensors, tmp_path):
    import torch

    out = tmp_path / "out"
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-0000{i + 1}-of-00002.bin"
        torch.save({n: torch.from_numpy(tensors[n]) for n in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 0
    assert not (out / index.name).exists()
    assert load(out).pooler is not None


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["payload", "cut", "list", "none"])
def test_from_torch_refuses_what_is_not_plain_tensors(folder, tmp_path, capsys, kind):
    import torch

    target = tmp_path / "executed"
    file = folder / "pytorch_model.bin"
    if kind == "payload":
        torch.save({"a": Payload(target)}, file)
    elif kind == "cut":
        torch.save({"a": torch.ones(1000)}, file)
        file.write_bytes(file.read_bytes()[:900])
    elif kind == "list":
        torch.save([1, 2], file)
    out = tmp_path / "out"
    assert run_command("convert", "--from_torch", str(folder), str(out)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not target.exists()
    assert not out.exists()


class Tensor:
    """Stands in for PyTorch's, as far as a conversion asks."""

    def __init__(
        self, array: np.ndarray, layout: str = "strided", is_quantized: bool = False
    ) -> None:
        self.array, self.layout, self.is_quantized = array, layout, is_quantized

    def contiguous(self) -> "Tensor":
        """Returns itself: numpy's arrays are."""
        return self

    def clone(self) -> "Tensor":
        """Returns a tensor with memory of its own."""
        return Tensor(self.array.copy())


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """File name -> what the stand-in for PyTorch finds in it.

    The real one, which takes gigabytes, runs the tests marked `reference`.
    """
    contents: dict[str, Any] = {}

    def load(file: Path, map_location: str, weights_only: bool) -> Any:
        assert (map_location, weights_only) == ("cpu", True)
        if isinstance(contents[file.name], Exception):
            raise contents[file.name]
        return contents[file.name]

    def save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        arrays = [tensor.array for tensor in tensors.values()]
        pairs = itertools.combinations(arrays, 2)
        assert not any(np.shares_memory(*pair) for pair in pairs), "as safetensors does"
        save_file({n: t.array for n, t in tensors.items()}, file, metadata)

    torch: Any = types.ModuleType("torch")
    torch.load, torch.Tensor, torch.strided = load, Tensor, "strided"
    of_torch: Any = types.ModuleType("safetensors.torch")
    of_torch.save_file = save
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "safetensors.torch", of_torch)
    return contents


def put(
    folder: Path, pickled: dict[str, Any], content: Any, file: str = "pytorch_model.bin"
) -> None:
    (folder / file).touch()
    pickled[file] = content


def test_names_numbers_and_companions_are_kept_and_nothing_else(
    folder, pickled, tmp_path
):
    table = np.arange(6, dtype=np.float16).reshape(2, 3)
    # Tied weights are one array under two names.
    put(folder, pickled, {"bert.a": Tensor(table), "cls.b": Tensor(table)})
    names = ("vocab.txt", "tokenizer.json", "spiece.model")
    for name in (*names, "model.safetensors.index.json", "README.md", "modeling.py"):
        (folder / name).write_text(name)
    out = tmp_path / "new" / "out"
    assert convert_from_torch(folder, out) == f"{out / 'model.safetensors'}: 2 tensors"
    found = {file.name for file in out.iterdir()}
    assert found == {"model.safetensors", "config.json", *names}
    assert all((out / name).read_text() == name for name in names)
    written = load_file(out / "model.safetensors")
    assert written.keys() == {"bert.a", "cls.b"}
    for array in written.values():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, table)


def test_shards_become_one_file(folder, pickled, tmp_path):
    for i, name in enumerate("ab"):
        put(folder, pickled, {name: Tensor(np.full(2, i))}, f"part-{i}.bin")
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-0.bin", "b": "part-1.bin"}}))
    assert convert_from_torch(folder, tmp_path / "out").endswith(": 2 tensors")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == {"a", "b"}
    assert not (tmp_path / "out" / index.name).exists()
    (folder / "part-1.bin").unlink()
    with pytest.raises(
        ValueError, match=r"source lacks the shards part-1\.bin: copy or download"
    ):
        convert_from_torch(folder, tmp_path / "again")


def test_a_folder_may_be_converted_where_it_lies_once(folder, pickled):
    put(folder, pickled, {"a": Tensor(np.ones(2))})
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    convert_from_torch(folder, folder / ".." / "source")
    after = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert after.keys() - before.keys() == {"model.safetensors"}
    assert before.items() <= after.items()
    with pytest.raises(ValueError, match=r"has a model\.safetensors already: name ano"):
        convert_from_torch(folder, folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is not a dictionary of tensors"),
        ({"a": 1}, "is not a dictionary of tensors"),
        ({1: Tensor(np.ones(1))}, "is not a dictionary of tensors"),
        ({"a": Tensor(np.ones(1), layout="sparse")}, "is not a dictionary of tensors"),
        ({"a": Tensor(np.ones(1), is_quantized=True)}, "is not a dictionary of tens"),
        (RuntimeError("Unsupported\x1b[31m\nmore"), r"loaded safely: Unsup.*x1b\[31m$"),
        (KeyError("x" * 1000), "cannot be loaded safely: 'x{199}$"),
    ],
    ids=["list", "number", "key", "sparse", "quantised", "two lines", "long"],
)
def test_what_is_not_plain_tensors_is_one_line(
    folder, pickled, tmp_path, content, message
):
    put(folder, pickled, content)
    with pytest.raises(ValueError, match=message) as error:
        convert_from_torch(folder, tmp_path / "out")
    assert str(folder / "pytorch_model.bin") in str(error.value)
    assert not {"\n", "\x1b"} & set(str(error.value))
    assert not (tmp_path / "out").exists()


def test_weights_come_last_and_whole_or_not_at_all(
    folder, pickled, tmp_path, monkeypatch
):
    """A folder with weights is a whole folder."""

    def fail(tensors: Any, file: Path, metadata: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space")

    put(folder, pickled, {"a": Tensor(np.ones(2))})
    monkeypatch.setattr(sys.modules["safetensors.torch"], "save_file", fail)
    with pytest.raises(OSError, match="no space"):
        convert_from_torch(folder, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["config.json"]


@pytest.mark.usefixtures("pickled")
def test_a_folder_without_pickles_says_which_it_lacks(folder, tmp_path):
    message = r"has no pytorch_model\.bin and no pytorch_model\.bin\.index\.json$"
    with pytest.raises(ValueError, match=message):
        convert_from_torch(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_pytorch_the_line_says_how_to_install_it(folder, tmp_path, monkeypatch):
    # To the import system, a package of this name is not installed.
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ValueError, match=r'needs PyTorch: pip install "sweet_jax\[torch'
    ):
        convert_from_torch(folder, tmp_path / "out")


def test_a_new_folder_is_empty_or_not_there(tmp_path):
    check_new_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    check_new_folder(tmp_path / "out")
    (tmp_path / "out" / "b\x1b").touch()
    (tmp_path / "out" / "a").touch()
    with pytest.raises(ValueError, match=r"out has a a, b\\x1b already: name an empty"):
        check_new_folder(tmp_path / "out")
    with pytest.raises(ValueError, match="a is a file: name a folder"):
        check_new_folder(tmp_path / "out" / "a")
