"""The exported model in PyTorch gives the same logits, and refuses what was altered."""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from exported_folders import THREE_EXITS, make_examples, pad
from tiny_models import write_model_folder

from sweet_jax.export.folder import export_folder
from sweet_jax.serving.load import load

pytestmark = pytest.mark.reference


def read(pytorch: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Returns the reader as a user has it: the copy in the folder."""
    monkeypatch.syspath_prepend(pytorch)
    for name in ("reader", "checks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("reader")


@pytest.fixture(scope="module")
def exported(tiny_encoder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pytorch")
    fields = THREE_EXITS | {"scale": 0.3, "separate_tables": False}
    write_model_folder(folder / "model", tiny_encoder, **fields)
    export_folder(folder / "model", folder / "out", pytorch=True)
    return folder / "out"


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"pooling": "cls"}),
        ("bert", {"member_exits": ((0,), (1,), (2,))}),
        ("mpnet", {}),
        ("deberta", {}),
        ("deberta-v2", {}),
        ("modernbert", {}),
    ],
)
def test_pytorch_gives_the_same_logits(
    make_tiny_encoder, tmp_path, monkeypatch, family, changes
):
    import torch

    model, out = tmp_path / "model", tmp_path / "out"
    fields = THREE_EXITS | {"scale": 0.3, "separate_tables": False} | changes
    write_model_folder(model, make_tiny_encoder(family), **fields)
    export_folder(model, out, pytorch=True)
    reader = read(out / "pytorch", monkeypatch)
    classifier = load(model)
    ids, mask = map(torch.from_numpy, pad(classifier.tokenize(make_examples())))
    got = reader.MultiExitModel(out / "pytorch")(ids, mask)
    want = classifier.collect(make_examples()).logits
    assert want.std() > 0.1
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4)


def test_a_row_does_not_depend_on_its_padding(exported, monkeypatch):
    import torch

    model = read(exported / "pytorch", monkeypatch).MultiExitModel(exported / "pytorch")
    ids, mask = torch.full((1, 9), 7), torch.ones((1, 9), dtype=torch.int64)
    alone = model(ids[:, :5], mask[:, :5])
    mask[:, 5:] = 0
    np.testing.assert_allclose(model(ids, mask).numpy(), alone.numpy(), atol=1e-5)
    assert alone.shape == (1, 3, 3)
    assert not alone.requires_grad
    assert not model.training, "dropout is off"


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "pytorch/exits.safetensors", "pytorch/encoder_0/config.json"],
)
def test_a_file_that_was_altered_or_is_missing_is_refused(
    exported, tmp_path, monkeypatch, name
):
    folder = Path(shutil.copytree(exported, tmp_path / "out"))
    reader = read(folder / "pytorch", monkeypatch)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-3] + b" " + data[-2:])
    with pytest.raises(ValueError, match=f"{name} was altered or damaged") as error:
        reader.MultiExitModel(folder / "pytorch")
    assert "\n" not in str(error.value)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"lacks the file {name}"):
        reader.MultiExitModel(folder / "pytorch")
