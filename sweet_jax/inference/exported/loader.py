"""Answers token ids with the programs in this folder: jax, numpy, flatbuffers alone.

    from loader import ExportedClassifier
    answers = ExportedClassifier("FOLDER")(token_ids, mask, threshold=0.9)

The first exit whose confidence reaches the threshold answers a row, and only undecided
rows go on to the next program.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

SCHEMA, FULL = 1, float("inf")  # No confidence reaches FULL: every exit runs.


class Answers(NamedTuple):
    """Of each row: logits [B, C] before temperature; of them calibrated, the rest."""

    logits: np.ndarray
    probabilities: np.ndarray
    labels: list[str]
    exits: np.ndarray


class ExportedClassifier:
    """The programs of a folder; each compiles once per shape that it meets."""

    def __init__(self, folder: str | Path) -> None:
        """Reads the folder; ValueError: it is newer, altered or incomplete."""
        folder = Path(folder)
        self.manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        if self.manifest["schema"] > SCHEMA:
            raise ValueError(f"{folder} is newer than this loader: take the one in it")
        for name, checksum in self.manifest["checksums"].items():
            data = (folder / name).read_bytes() if (folder / name).is_file() else b""
            if hashlib.sha256(data).hexdigest() != checksum:
                raise ValueError(f"{folder / name} is missing or altered: copy again")
        with np.load(folder / "weights.npz") as arrays:
            weights = {name: jax.device_put(arrays[name]) for name in arrays}
        self._programs = []
        for program in self.manifest["programs"]:
            run = export.deserialize(bytearray((folder / program["file"]).read_bytes()))
            read = {name: weights[name] for name in program["weights"]}
            inputs = [(x["name"], x["shape"][0] == "batch") for x in program["inputs"]]
            self._programs.append((inputs, read, jax.jit(run.call)))

    def __call__(
        self, ids: Any, mask: Any = None, types: Any = None, threshold: float = FULL
    ) -> Answers:
        """Answers ids [B, L]; mask: 1 at tokens, then 0; types: of pairs, 0 or 1."""
        low, high = self.manifest["threshold_range"]
        limit = np.float32(threshold)  # as confidences are
        if limit != FULL and not np.float32(low) <= limit <= high:
            raise ValueError(f"threshold={threshold} is not in {low} to {high}, or inf")
        ids = np.asarray(ids)
        mask = np.ones_like(ids) if mask is None else np.asarray(mask)
        types = np.zeros_like(ids) if types is None else np.asarray(types)
        state = self._check(token_ids=ids, mask=mask, type_ids=types)
        rows = where = np.arange(len(state["mask"]))
        logits = np.zeros((len(rows), len(self.manifest["label_names"])), np.float32)
        shares, exits = np.zeros_like(logits), np.zeros(len(rows), int)
        temperatures = np.array(self.manifest["temperatures"], np.float32)
        for i, (inputs, weights, call) in enumerate(self._programs):
            # Few shapes: row counts are powers of two, filled by repeating rows.
            take = np.resize(where, 1 << (len(where) - 1).bit_length())
            state = {n: state[n][take] if by_row else state[n] for n, by_row in inputs}
            state |= call(weights, state)
            z = np.asarray(state["logits"])[: len(rows)]
            odds = np.exp((z - z.max(axis=1, keepdims=True)) / temperatures[i])
            exits[rows], logits[rows] = i, z
            shares[rows] = odds / odds.sum(axis=1, keepdims=True)
            where = np.flatnonzero(shares[rows].max(axis=1).clip(low) < limit)
            rows = rows[where]
            if not len(rows):
                break
        labels = [self.manifest["label_names"][k] for k in shares.argmax(axis=1)]
        return Answers(logits, shares, labels, exits)

    def _check(self, **arrays: Any) -> dict[str, np.ndarray]:
        """Returns [B, L] arrays, padded to a bucket; ValueError: they are no such."""
        shape, most = arrays["token_ids"].shape, self.manifest["max_length"]
        if len(shape) != 2 or 0 in shape or shape[1] > most:
            raise ValueError(f"token ids {shape}: expected (1.., 1 to {most} tokens)")
        padded = min(b for b in self.manifest["buckets"] if b >= shape[1])
        state = {name: np.zeros((shape[0], padded), np.int32) for name in arrays}
        for name, x in arrays.items():
            end = self.manifest["limits"][name]
            fits = x.shape == shape and x.dtype.kind in "iu"
            if not (fits and 0 <= x.min() <= x.max() < end):
                raise ValueError(f"{name}: expected integers 0 to {end - 1}, {shape}")
            state[name][:, : shape[1]] = x
        if not (state["mask"][:, 0].all() and (np.diff(state["mask"]) <= 0).all()):
            raise ValueError("mask: expected 1 at each row's tokens, 0 behind them")
        return state
