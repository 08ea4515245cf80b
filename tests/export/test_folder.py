"""An exported folder answers as the classifier does, without this package."""

import importlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from jax import export
from packaging.requirements import Requirement
from tiny_models import write_model_folder

from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.export.folder import ExportError, export_folder
from sweet_jax.serving.classifier import AdaptiveClassifier, load
from sweet_jax.serving.model_folder import ModelFolderError
from sweet_jax.standalone.loader import FULL, Answers, ExportedClassifier

THREE_EXITS: dict[str, Any] = {
    "scale": 1.0,  # so that rows differ
    "exit_layers": (0, 1, 2),
    "member_exits": ((0, 1, 2),),
    "temperatures": (1.5, 2.0, 1.0),
    "cost_fractions": (1 / 3, 2 / 3, 1.0),
    "buckets": (8, 16),
    "label_names": ("bad", "fair", "good"),
}
TEXTS = (
    "a good film",
    "the plot",
    "dull and grim and cold",
    "very warm scene with a superb cast",
    "a good film",
    "it",
    "awful",
)
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


def make_examples() -> Examples:
    count = len(TEXTS)
    return Examples(TEXTS, None, np.zeros(count, np.int32), np.arange(count))


def pad(tokenized: Tokenized) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids [B, L] and their mask."""
    lengths = np.diff(tokenized.offsets)
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = np.zeros_like(mask)
    ids[mask > 0] = tokenized.token_ids
    return ids, mask


def choose_threshold(logits_NEC: np.ndarray, temperatures: tuple[float, ...]) -> float:
    """Returns a middle between confidences at which rows leave at the most exits."""
    odds = np.exp(logits_NEC / np.array(temperatures)[:, None])
    confidences = (odds / odds.sum(axis=-1, keepdims=True)).max(axis=-1)
    confidences[:, -1] = 1

    def count_exits(threshold: float) -> int:
        return len(set((confidences >= threshold).argmax(axis=1)))

    scores = np.unique(confidences)
    wide = np.flatnonzero(np.diff(scores) > 1e-3)
    return max((scores[wide] + scores[wide + 1]) / 2, key=count_exits).item()


def check_answers(
    classifier: AdaptiveClassifier,
    logits_NEC: np.ndarray,
    threshold: float,
    got: dict[str, np.ndarray],
) -> None:
    """The classifier gives the same logits, exits, probabilities and labels."""
    want = list(classifier.predict(list(TEXTS), threshold=threshold))
    exits = np.array([answer.exit for answer in want])
    np.testing.assert_array_equal(got["exits"], exits)
    np.testing.assert_allclose(
        got["logits"], logits_NEC[np.arange(len(exits)), exits], atol=1e-5
    )
    probabilities = [answer.probabilities for answer in want]
    np.testing.assert_allclose(got["probabilities"], probabilities, atol=1e-5)
    assert got["labels"].tolist() == [answer.label for answer in want]


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


def test_programs_say_nothing_of_this_machine(folder):
    for file in folder.glob("*.jaxexp"):
        assert b"sweet_jax/" not in file.read_bytes()


def test_a_program_itself_refuses_more_tokens_than_training_saw(folder, loaded):
    program = loaded.manifest["programs"][0]
    with np.load(folder / "weights.npz") as arrays:
        weights = dict(arrays)
    # The encoder has 32 positions, the model was trained on 16.
    state = {x["name"]: np.ones((2, 17), np.int32) for x in program["inputs"]}
    read = {name: weights[name] for name in program["weights"]}
    with pytest.raises(ValueError, match="Error refining shapes"):
        read_program(folder, program).call(read, state)


IDS = np.ones((2, 5), np.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"ids": np.ones((2, 17), int)},
            r"\(2, 17\): expected \(1.., 1 to 16 tokens\)",
        ),
        ({"ids": np.ones((0, 5), int)}, r"token ids \(0, 5\)"),
        ({"ids": np.ones((2, 0), int)}, r"token ids \(2, 0\)"),
        ({"ids": [1, 2, 3]}, r"token ids \(3,\)"),
        ({"ids": IDS * 0.5}, r"token_ids: expected integers 0 to 63, \(2, 5\)"),
        ({"ids": IDS * 64}, r"token_ids: expected integers 0 to 63"),
        ({"ids": -IDS}, r"token_ids: expected integers 0 to 63"),
        ({"mask": IDS[:1]}, r"mask: expected integers 0 to 1, \(2, 5\)"),
        ({"mask": IDS == 1}, r"mask: expected integers"),
        ({"mask": 2 * IDS}, r"mask: expected integers 0 to 1"),
        ({"mask": [[0, 1, 1, 1, 1]] * 2}, r"mask: expected 1 at each row's tokens"),
        ({"mask": [[0] * 5, [1] * 5]}, r"mask: expected 1 at each row's tokens"),
        ({"mask": [[1, 0, 1, 0, 0]] * 2}, r"mask: expected 1 at each row's tokens"),
        ({"types": 2 * IDS}, r"type_ids: expected integers 0 to 1"),
        ({"threshold": 0.3}, r"threshold=0.3 is not in 0.333.* to 1.0, or inf"),
        ({"threshold": 1.1}, r"threshold=1.1"),
        ({"threshold": float("nan")}, r"threshold=nan"),
    ],
)
def test_what_the_loader_refuses(loaded, arguments, message):
    with pytest.raises(ValueError, match=message):
        loaded(**({"ids": IDS} | arguments))


def test_an_altered_an_incomplete_and_a_newer_folder_are_refused(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(json.dumps(json.loads(text) | {"schema": 2}))
    with pytest.raises(ValueError, match="copy is newer than this loader"):
        ExportedClassifier(copy)
    (copy / "manifest.json").write_text(text)
    program = copy / "segment_1.jaxexp"
    program.write_bytes(program.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"segment_1\.jaxexp was altered or damaged"):
        ExportedClassifier(copy)
    program.unlink()
    with pytest.raises(ValueError, match=r"lacks the file segment_1\.jaxexp: copy"):
        ExportedClassifier(copy)


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


def test_the_loader_gives_the_classifiers_answers(model, loaded):
    check_loaded(load(model), loaded)


def check_loaded(classifier: AdaptiveClassifier, loaded: ExportedClassifier) -> None:
    """All leave at once, at most exits, and only at the last."""
    logits_NEC = classifier.collect(make_examples()).logits
    middle = choose_threshold(logits_NEC, THREE_EXITS["temperatures"])
    ids, mask = pad(classifier.tokenize(make_examples()))
    for threshold in (1 / 3, middle, FULL):
        answers = loaded(ids, mask, threshold=threshold)
        got = {name: np.array(x) for name, x in answers._asdict().items()}
        check_answers(classifier, logits_NEC, threshold, got)


def test_a_confidence_equal_to_the_threshold_answers(model, loaded):
    ids, mask = pad(load(model).tokenize(make_examples()))
    ids, mask = ids[:1], mask[:1]
    confidence = loaded(ids, mask, threshold=1 / 3).probabilities.max()
    assert confidence < 1
    assert loaded(ids, mask, threshold=confidence.item()).exits == 0
    above = np.nextafter(confidence, np.float32(1))
    assert loaded(ids, mask, threshold=above.item()).exits > 0


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


@pytest.mark.reference
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
    # As a user reads it: by the copy in the folder.
    monkeypatch.syspath_prepend(out / "pytorch")
    monkeypatch.delitem(sys.modules, "reader", raising=False)
    reader = importlib.import_module("reader")
    classifier = load(model)
    ids, mask = map(torch.from_numpy, pad(classifier.tokenize(make_examples())))
    got = reader.MultiExitModel(out / "pytorch")(ids, mask)
    want = classifier.collect(make_examples()).logits
    assert want.std() > 0.1
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4)


@pytest.mark.slow
def test_tables_of_segments_have_no_form_in_pytorch(make_tiny_encoder, tmp_path):
    model = tmp_path / "model"
    write_model_folder(model, make_tiny_encoder("mpnet"))
    with pytest.raises(ValueError, match="segments have trained tables of their own"):
        export_folder(model, tmp_path / "out", pytorch=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
