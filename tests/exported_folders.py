"""Exported folders: a model of three exits, its answers, and how damage is refused."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.serving.model_folder import write_checksums
from sweet_jax.standalone.checks import FolderError
from sweet_jax.standalone.loader import FULL, ExportedClassifier

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


def check_loaded(classifier: AdaptiveClassifier, loaded: ExportedClassifier) -> None:
    """All leave at once, at most exits, and only at the last."""
    logits_NEC = classifier.collect(make_examples()).logits
    middle = choose_threshold(logits_NEC, THREE_EXITS["temperatures"])
    ids, mask = pad(classifier.tokenize(make_examples()))
    for threshold in (1 / 3, middle, FULL):
        answers = loaded(ids, mask, threshold=threshold)
        got = {name: np.array(x) for name, x in answers._asdict().items()}
        check_answers(classifier, logits_NEC, threshold, got)


def check_refused(folder: Path, message: str) -> None:
    """Loading is refused in one printable line, within seconds."""
    start = time.perf_counter()
    with pytest.raises(FolderError, match=message) as error:
        ExportedClassifier(folder)
    assert time.perf_counter() - start < 5
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def sign(folder: Path, manifest: Any = None) -> None:
    """Writes the manifest, and checksums that fit."""
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    write_checksums(folder)
