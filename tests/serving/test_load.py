"""Loading a folder: what is damaged, newer or meant for another backend is refused."""

import json
import shutil
from pathlib import Path

import pytest

import sweet_jax


def change_json(path: Path, **values) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: change_json(m / "model.json", schema=9), "has schema 9.*update"),
        (lambda m: (m / "model.json").write_text("{}"), "is damaged"),
        (lambda m: (m / "model.json").write_text("[]"), "is not a JSON object"),
        (lambda m: (m / "model.json").unlink(), "it has no model.json"),
        (lambda m: change_json(m / "model.json", temperatures=[2, 2]), "was altered"),
        (lambda m: (m / "checksums.json").unlink(), "checksums.json is missing"),
        (lambda m: (m / "checksums.json").write_text("[]"), "lists no checksums"),
        (
            lambda m: (m / "tokenizer" / "tokenizer.json").unlink(),
            "lacks the file tokenizer/tokenizer.json",
        ),
        (
            lambda m: (m / "params.safetensors").write_bytes(b"0"),
            "params.safetensors was altered or damaged",
        ),
    ],
)
def test_a_damaged_or_newer_folder_is_refused(tiny_model, tmp_path, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        sweet_jax.load(folder)
    assert "\n" not in str(error.value)


def test_a_batch_size_of_0_is_refused(tiny_model):
    with pytest.raises(ValueError, match="batch_size=0: allowed is 1 or more"):
        sweet_jax.load(tiny_model, batch_size=0)
