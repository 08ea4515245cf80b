"""Runs the classifier in this ONNX folder; needs onnxruntime, numpy and tokenizers.

    from loader import OnnxClassifier
    answers = OnnxClassifier("FOLDER")(["a warm and funny film"], speedup=2)

A text leaves at the first exit whose score reaches the threshold; only undecided texts
continue with the next segment. Answers are those of `sweet_jax.load("FOLDER")`.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

if __package__:  # In sweet_jax.
    from sweet_jax.standalone import checks, onnx_session
else:  # In an ONNX folder.
    import checks  # type: ignore[no-redef]
    import onnx_session  # type: ignore[no-redef]

FULL = float("inf")  # No score reaches FULL: every layer runs.
# Texts are sorted by length within so many batches, which then have little padding.
_CHUNK_BATCHES = 16
_MOST_BYTES = 64 << 30


class Answer(NamedTuple):
    """The answer for one text; probabilities are in the order of `label_names`."""

    label: str
    probabilities: tuple[float, ...]
    exit: int


class OnnxClassifier:
    """The segments, the tokenizer and the calibration of a folder."""

    def __init__(
        self, folder: str | Path, batch_size: int = 32, threads: int | None = None
    ) -> None:
        """Reads the folder; raises ValueError if it is altered or incomplete."""
        folder = Path(folder)
        sums = checks.read_checksums(folder, ("__pycache__",))
        checks.verify_files(folder, sums, sums, _MOST_BYTES)
        self.model = checks.read_json(folder / "model.json")
        self.label_names, self.batch_size = self.model["label_names"], batch_size
        self._sessions = [
            onnx_session.start_session(
                (folder / f"segment_{i}.onnx").read_bytes(), threads
            )
            for i in range(len(self.model["exit_layers"]))
        ]
        self._reads = checks.read_json(folder / "onnx.json")["tokens"]
        path = folder / "tokenizer" / "tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(
            self.model["max_length"], direction=self._reads["truncation_side"]
        )

    def __call__(
        self,
        texts: Sequence[str] | Sequence[tuple[str, str]],
        threshold: float | None = None,
        criterion: str = "confidence",
        speedup: float | None = None,
    ) -> list[Answer]:
        """Classifies texts, or pairs, at a threshold or a speed-up of model.json."""
        if speedup is not None:
            threshold = self._find_threshold(threshold, criterion, speedup)
        rule = _Rule(self.model, FULL if threshold is None else threshold, criterion)
        number = 1 + self.model["has_pairs"]
        for i, text in enumerate(texts):
            parts: Any = text if number == 2 else (text,)
            if (
                not isinstance(parts, tuple)
                or [type(x) for x in parts] != [str] * number
            ):
                raise ValueError(
                    f"input {i}: this model reads {number} texts per input"
                )
            if not all(part.strip() for part in parts):
                raise ValueError(f"input {i} is empty: leave it out")
        answers: dict[int, Answer] = {}
        for places, batch in self._make_batches(texts):
            answers |= zip(places.tolist(), self._run(batch, rule), strict=True)
        return [answers[i] for i in range(len(texts))]

    def _find_threshold(
        self, threshold: float | None, criterion: str, speedup: float
    ) -> float | None:
        """Returns the threshold that was chosen for a speed-up; None: every layer."""
        stored = {
            row["target"]: row["threshold"]
            for row in self.model["thresholds"].get(criterion, ())
            if row["score"] is not None  # Else out of reach.
        }
        if threshold is not None or speedup not in stored:
            allowed = ", ".join(f"{target:g}" for target in stored) or "none"
            raise ValueError(
                f"speedup={speedup}: stored for {criterion} are {allowed}; give one of"
                " them, or a threshold"
            )
        return stored[speedup]

    def _make_batches(
        self, texts: Sequence[Any]
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Yields the places of texts, and their tokens."""
        size = _CHUNK_BATCHES * self.batch_size
        for first in range(0, len(texts), size):
            chunk = [_clean(text) for text in texts[first : first + size]]
            rows = self._tokenizer.encode_batch(chunk)
            order = np.argsort([len(row.ids) for row in rows], kind="stable")
            for start in range(0, len(order), self.batch_size):
                places = order[start : start + self.batch_size]
                batch = [rows[i] for i in places]
                for row in batch:
                    row.pad(len(rows[places[-1]].ids), pad_id=self._reads["pad_id"])
                types = [row.type_ids for row in batch]
                tokens = {
                    "token_ids": np.array([row.ids for row in batch], np.int32),
                    "type_ids": np.array(types, np.int32) * self._reads["has_type_ids"],
                    "mask": np.array([row.attention_mask for row in batch], np.int32),
                }
                yield first + places, tokens

    def _run(self, rows: dict[str, np.ndarray], rule: "_Rule") -> list[Answer]:
        """Returns the answers for a batch."""
        answers: Any = [None] * len(rows["mask"])
        where, history = np.arange(len(answers)), np.zeros((len(answers), 0), int)
        for i, session in enumerate(self._sessions):
            outputs = onnx_session.run_session(session, rows)
            if "state_after" in outputs:
                rows = {"state": outputs["state_after"], "mask": rows["mask"]}
            best = outputs["logits"].argmax(axis=1)
            history = np.concatenate([history, best[:, None]], axis=1)
            leaves = rule.decide(i, outputs, history)
            temperature = float(np.float32(self.model["temperatures"][i]))
            shares = _compute_softmax(outputs["logits"].astype(float) / temperature)
            for k in np.flatnonzero(leaves):
                name = self.label_names[best[k]]
                answers[where[k]] = Answer(name, tuple(shares[k].tolist()), i)
            if leaves.all():
                break
            rows = {name: x[~leaves] for name, x in rows.items()}
            where, history = where[~leaves], history[~leaves]
        return answers


class _Rule:
    """Decides which rows leave at an exit."""

    def __init__(self, model: dict[str, Any], threshold: float, criterion: str) -> None:
        self._model, self._criterion = model, criterion
        self._last = len(model["exit_layers"]) - 1
        ranges = {"confidence": (1 / len(model["label_names"]), 1.0)}
        ranges |= {"entropy": (0.0, 1.0), "margin": (0.0, 1.0)}
        ranges |= {"patience": (1.0, self._last + 1.0)}
        ranges |= {"lte": (0.0, 1.0)} if model["lte_ranges"] else {}
        if criterion not in ranges:
            raise ValueError(
                f"criterion={criterion!r}: allowed are {', '.join(ranges)}"
            )
        # In float32, as scores.
        low, high = map(np.float32, ranges[criterion])
        self._low, self._high, self._limit = low, high, np.float32(threshold)
        if self._limit != FULL and not low <= self._limit <= high:
            raise ValueError(
                f"threshold={threshold}: allowed is {low} to {high}, or inf"
            )

    def decide(self, i: int, outputs: Any, history: np.ndarray) -> np.ndarray:
        """Returns which rows leave at exit i; history: the classes of exits 0 to i."""
        if i == self._last:
            return np.full(len(history), True)
        z = outputs["logits"] - outputs["logits"].max(axis=1, keepdims=True)
        p = _compute_softmax(z / np.float32(self._model["temperatures"][i]))
        if self._criterion == "confidence":
            scores = p.max(axis=1)
        elif self._criterion == "entropy":
            scores = 1 + (p * np.log(p.clip(1e-38))).sum(axis=1) / math.log(p.shape[1])
        elif self._criterion == "margin":
            scores = np.diff(np.sort(p, axis=1)[:, -2:])[:, 0]
        elif self._criterion == "patience":  # Equal classes in a row, up to this exit.
            same = history[:, ::-1] == history[:, -1:]
            scores = np.logical_and.accumulate(same, axis=1).sum(axis=1)
        else:
            low, high = self._model["lte_ranges"][i]
            scores = (outputs["lte"][:, 0] - low) / (high - low if high > low else FULL)
        return np.float32(scores).clip(self._low, self._high) >= self._limit


def _compute_softmax(z: np.ndarray) -> np.ndarray:
    odds = np.exp(z - z.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _clean(text: Any) -> Any:
    """Replaces lone surrogates, which UTF-8 cannot encode."""
    if isinstance(text, tuple):
        return tuple(map(_clean, text))
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
