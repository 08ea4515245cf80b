"""An exported folder answers as the classifier does, without this package."""

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from exported_folders import (
    TEXTS,
    THREE_EXITS,
    check_answers,
    check_loaded,
    choose_threshold,
    make_examples,
    pad,
)
from jax import export
from packaging.requirements import Requirement
from tiny_models import write_model_folder

from sweet_jax.export.folder import ExportError, export_folder
from sweet_jax.serving.load import load
from sweet_jax.serving.model_folder import ModelFolderError
from sweet_jax.standalone.loader import FULL, Answers, ExportedClassifier

# Runs in a Python whose packages are jax's own and flatbuffers.
_SCRIPT = """
import importlib.util, sys
site, folder, arrays, out = sys.argv[1:]
sys.path[:0] = [site, folder]
import numpy as np
from loader import ExportedClassifier
given = np.load(arrays)
classifier = ExportedClassifier(folder)
results = {}
for i, threshold in enumerate(given["thresholds"]):
    answers = classifier(given["ids"], given["mask"], threshold=threshold)
    results |= {f"{name}_{i}": np.array(x) for name, x in answers._asdict().items()}
np.savez(out, **results)
for name in ("sweet_jax", "flax", "transformers", "safetensors"):
    assert importlib.util.find_spec(name) is None, name
"""


@pytest.fixture(scope="module")
def model(tiny_encoder, tmp_path_factory) -> Path:
    """A model folder of three exits."""
    folder = tmp_path_factory.mktemp("model") / "model"
    write_model_folder(folder, tiny_encoder, **THREE_EXITS)
    return folder


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    """The same, exported."""
    out = tmp_path_factory.mktemp("exported") / "out"
    line = export_folder(model, out)
    assert "3 programs for cpu, cuda, rocm, tpu, inputs of up to 16 tokens" in line
    assert list(out.parent.iterdir()) == [out]
    return out


@pytest.fixture(scope="module")
def loaded(folder) -> ExportedClassifier:
    return ExportedClassifier(folder)


def link_packages(site: Path) -> None:
    """Links into a folder what `pip install jax flatbuffers` would bring."""
    site.mkdir()
    waiting, seen = ["jax", "flatbuffers"], set()
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        for top in {Path(str(f)).parts[0] for f in distribution.files or ()} - {".."}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))))
        for requirement in map(Requirement, distribution.requires or ()):
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


@pytest.mark.slow
def test_python_with_jax_alone_gives_the_classifiers_answers(model, folder, tmp_path):
    classifier = load(model)
    logits_NEC = classifier.collect(make_examples()).logits
    middle = choose_threshold(logits_NEC, THREE_EXITS["temperatures"])
    thresholds = (middle, FULL)
    ids, mask = pad(classifier.tokenize(make_examples()))
    np.savez(tmp_path / "given.npz", ids=ids, mask=mask, thresholds=thresholds)
    link_packages(tmp_path / "site")
    # -I: no PYTHONPATH, no working directory; -S: no site-packages.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _SCRIPT]
        + [str(x) for x in (tmp_path / "site", folder)]
        + [str(tmp_path / name) for name in ("given.npz", "answers.npz")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "answers.npz") as arrays:
        answers = dict(arrays)
    for i, threshold in enumerate(thresholds):
        got = {name: answers[f"{name}_{i}"] for name in Answers._fields}
        check_answers(classifier, logits_NEC, threshold, got)
    assert set(answers["exits_0"]) == {0, 1, 2}
    assert set(answers["exits_1"]) == {2}


def test_the_tokenizer_in_the_folder_gives_the_ids(model, folder):
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer/tokenizer.json"))
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(TEXTS))]
    tokenized = load(model).tokenize(make_examples())
    assert np.concatenate(ids).tolist() == tokenized.token_ids.tolist()


def test_the_manifest_lists_what_programs_take_in_order(folder, loaded):
    with np.load(folder / "weights.npz") as arrays:
        weights = dict(arrays)
    read: set[str] = set()
    for program in loaded.manifest["programs"]:
        exported = read_program(folder, program)
        read.update(program["weights"])
        shapes = [list(weights[name].shape) for name in program["weights"]]
        shapes += [x["shape"] for x in program["inputs"]]
        assert [describe_shape(x) for x in exported.in_avals] == shapes
        outputs = [x["shape"] for x in program["outputs"]]
        assert [describe_shape(x) for x in exported.out_avals] == outputs
        assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")
    assert read == set(weights)  # and nothing lies there that none reads


def read_program(folder: Path, program: dict[str, Any]) -> export.Exported:
    return export.deserialize(bytearray((folder / program["file"]).read_bytes()))


def describe_shape(aval: Any) -> list[Any]:
    return [x if isinstance(x, int) else str(x) for x in aval.shape]


def test_nothing_is_overwritten_and_nothing_half_written(model, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ExportError, match="taken already exists"):
        export_folder(model, tmp_path / "taken")
    with pytest.raises(ModelFolderError, match="is not a model folder"):
        export_folder(tmp_path, tmp_path / "out")
    # To the import system, a package of this name is not installed.
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ExportError, match=r'pip install "sweet_jax\[export\]"'):
        export_folder(model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


_MEMBERS = {"member_exits": ((0,), (1,), (2,)), "separate_tables": False}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *(
            pytest.param(family, changes, marks=pytest.mark.slow)
            for family, changes in (
                ("bert", {"lte_ranges": ((0.2, 0.8),) * 3}),
                ("mpnet", _MEMBERS),
                ("deberta-v2", {}),
                ("modernbert", {}),
            )
        ),
        *(
            pytest.param(family, changes, marks=pytest.mark.long)
            for family, changes in (
                ("bert", {"shared_pooler": True, "pooling": "cls"}),
                ("bert", _MEMBERS),
                ("roberta", {}),
                ("mpnet", {}),
                ("mpnet", {"separate_tables": False}),
                ("deberta", {}),
                ("deberta-v2", {"separate_tables": False}),
                ("deberta-v2", _MEMBERS),
            )
        ),
    ],
)
def test_every_family_and_method(make_tiny_encoder, tmp_path, family, changes):
    model = tmp_path / "model"
    write_model_folder(model, make_tiny_encoder(family), **(THREE_EXITS | changes))
    export_folder(model, tmp_path / "out")
    loaded = ExportedClassifier(tmp_path / "out")
    check_loaded(load(model), loaded)
    has_lte = "lte_ranges" in changes
    for program in loaded.manifest["programs"]:
        assert has_lte == ("lte" in [x["name"] for x in program["outputs"]])


@pytest.mark.slow
def test_the_command(model, tmp_path):
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "sweet_jax", "export", *arguments],
            capture_output=True,
            text=True,
        )
        text = done.stderr if done.returncode else done.stdout
        return done.returncode, text.strip().splitlines()[-1]

    arguments = (f"--model={model}", f"--out={tmp_path / 'out'}")
    status, line = run(*arguments)
    assert status == 0
    assert "3 programs" in line
    status, line = run(*arguments)
    assert status == 2
    assert line.startswith("error: ")
    assert "out already exists" in line
    assert run(f"--model={tmp_path}", "--out=x")[0] == 2


@pytest.mark.slow
def test_tables_of_segments_have_no_form_in_pytorch(make_tiny_encoder, tmp_path):
    model = tmp_path / "model"
    write_model_folder(model, make_tiny_encoder("mpnet"))
    with pytest.raises(ValueError, match="segments have trained tables of their own"):
        export_folder(model, tmp_path / "out", pytorch=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
