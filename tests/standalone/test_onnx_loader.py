"""The loader of an ONNX folder answers as `sweet_jax.load` does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_folders import write_onnx_folder
from tiny_models import write_model_folder

import sweet_jax
from benchmarks.tiny_model import WORDS, write_tiny_model
from sweet_jax.serving.model_folder import write_checksums
from sweet_jax.standalone.onnx_loader import Answer, OnnxClassifier

STORED = {
    "confidence": [
        {"target": 1.2, "threshold": 0.75, "score": 0.7},
        {"target": 1.0, "threshold": None, "score": 0.8},
        {"target": 9.0, "threshold": None, "score": None},
    ]
}
MORE = {"accuracy": None, "cost_fraction": None, "oracle": None}
THRESHOLDS = {
    criterion: [row | MORE for row in rows] for criterion, rows in STORED.items()
}


def make_texts(count: int) -> list[str]:
    """Returns texts of many lengths, some longer than the model reads."""
    rng = np.random.default_rng(2)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 45))) for _ in range(count)]


def check_same(ours: list[Answer], theirs: Any) -> None:
    assert [(a.label, a.exit) for a in ours] == [(a.label, a.exit) for a in theirs]
    np.testing.assert_allclose(
        [a.probabilities for a in ours],
        [a.probabilities for a in theirs],
        rtol=1e-12,
    )


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "int8"
    return write_onnx_folder(path, tiny_model, "int8", thresholds=THRESHOLDS)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"threshold": 0.8},
        {"threshold": 0.3, "criterion": "entropy"},
        {"threshold": 0.6, "criterion": "margin"},
        {"threshold": 2.0, "criterion": "patience"},
    ],
)
def test_answers_are_those_of_the_classifier(folder, rule):
    texts = make_texts(70)
    loader = OnnxClassifier(folder, batch_size=4)
    ours = loader(texts, **rule)
    check_same(ours, sweet_jax.load(folder, batch_size=4).predict(texts, **rule))
    if rule.get("threshold", 0) < 1 and rule:
        assert len({a.exit for a in ours}) == 2


def test_answers_do_not_depend_on_the_batch(folder):
    texts = make_texts(40)
    alone, together = (
        [a.probabilities for a in OnnxClassifier(folder, batch_size=size)(texts)]
        for size in (1, 40)
    )
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.slow
def test_learned_exits_pairs_and_sets_of_models(tiny_encoder, tmp_path):
    texts = make_texts(40)
    learned = tmp_path / "learned"
    ranges = {"lte_ranges": ((0.0, 1.0), (0.2, 0.8))}
    write_model_folder(learned, tiny_encoder, 1.0, **ranges)
    members = tmp_path / "members"
    separate = {"member_exits": ((0,), (1,)), "separate_tables": False}
    write_model_folder(members, tiny_encoder, 1.0, **separate)
    pairs = write_tiny_model(tmp_path / "pairs", has_pairs=True)
    both: list[Any] = list(zip(texts[:20], texts[20:], strict=True))
    for model, inputs, criterion in (
        (learned, texts, "lte"),
        (members, texts, "confidence"),
        (pairs, both, "confidence"),
    ):
        out = write_onnx_folder(tmp_path / f"{model.name}-onnx", model)
        classifier = sweet_jax.load(out)
        examples = classifier.make_examples(inputs)
        scores = np.unique(classifier.score(examples, criterion)[:, 0])
        wide = np.diff(scores).argmax()
        rule = {"threshold": float(scores[wide : wide + 2].mean())}
        expected = list(classifier.predict(inputs, criterion=criterion, **rule))
        assert len({a.exit for a in expected}) == 2
        check_same(OnnxClassifier(out)(inputs, criterion=criterion, **rule), expected)


def test_stored_speedups_are_thresholds(folder):
    loader, texts = OnnxClassifier(folder), make_texts(30)
    assert loader(texts, speedup=1.2) == loader(texts, threshold=0.75)
    assert loader(texts, speedup=1.0) == loader(texts)


@pytest.mark.parametrize(
    ("texts", "rule", "message"),
    [
        (["a"], {"speedup": 2.0}, "stored for confidence are 1.2, 1; give one"),
        (["a"], {"speedup": 9.0}, "stored for confidence are 1.2, 1; give one"),
        (["a"], {"speedup": 1.2, "criterion": "margin"}, "stored for margin are none"),
        (["a"], {"speedup": 1.2, "threshold": 0.9}, "give one of them, or a threshold"),
        (["a"], {"threshold": 0.4}, r"threshold=0.4: allowed is 0.5 to 1.0, or inf"),
        (["a"], {"threshold": float("nan")}, "threshold=nan: allowed is"),
        (["a"], {"criterion": "lte"}, "'lte': allowed are confidence, entropy, margin"),
        (["a", " "], {}, "input 1 is empty"),
        ([("a", "b")], {}, "input 0: this model reads 1 texts per input"),
    ],
)
def test_what_the_loader_refuses(folder, texts, rule, message):
    with pytest.raises(ValueError, match=message):
        OnnxClassifier(folder)(texts, **rule)


# Runs where of the installed packages only these can be imported.
_SCRIPT = """
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        blocked = ("jax", "flax", "transformers", "sweet_jax", "onnx", "scipy")
        if name.split(".")[0] in blocked:
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
folder, texts = sys.argv[1], json.load(sys.stdin)
sys.path.insert(0, folder)
from loader import OnnxClassifier
print(json.dumps(OnnxClassifier(folder)(texts, threshold=0.8)))
"""


def test_the_folder_runs_without_this_package(folder):
    texts = [*make_texts(20), "half a \ud83d surrogate"]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    ours = [Answer(*answer) for answer in json.loads(done.stdout)]
    # Python has left its own folder there, which is not a part of it.
    check_same(ours, sweet_jax.load(folder).predict(texts, threshold=0.8))


def test_loading_a_folder_runs_none_of_its_files(tiny_model, tmp_path):
    folder = write_onnx_folder(tmp_path / "onnx", tiny_model)
    for name in ("loader.py", "checks.py", "onnx_session.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    write_checksums(folder)
    sweet_jax.load(folder).predict(["a film"])
    assert not (tmp_path / "run").exists()


def test_damage_is_found(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    text = (copied / "model.json").read_text()
    (copied / "model.json").write_text(text.replace("0.75", "0.95"))
    with pytest.raises(ValueError, match=r"model\.json was altered or damaged"):
        OnnxClassifier(copied)


def test_rows_of_tokens_follow_the_rules_of_the_folder(tmp_path):
    model = write_tiny_model(tmp_path / "pairs", has_pairs=True)
    folder = write_onnx_folder(tmp_path / "onnx", model, max_length=6)
    part = json.loads((folder / "onnx.json").read_text())
    tokens = {"pad_id": 5, "truncation_side": "left", "has_type_ids": False}
    (folder / "onnx.json").write_text(json.dumps(part | {"tokens": tokens}))
    write_checksums(folder)
    classifier = OnnxClassifier(folder)
    texts = [("bad film", "warm plot cast"), ("a", "the")]
    ((places, batch),) = classifier._make_batches(texts)
    assert places.tolist() == [1, 0]
    words = {word: 4 + i for i, word in enumerate(WORDS)}
    film, cast = words["film"], words["cast"]
    # Longest first and from the left: one of the first text's words is left.
    assert batch["token_ids"].tolist() == [
        [2, words["a"], 3, words["the"], 3, 5],
        [2, film, 3, words["plot"], cast, 3],
    ]
    assert batch["mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert not batch["type_ids"].any()
