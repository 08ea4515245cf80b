"""Runs the exported classifier in this folder; needs only jax, numpy, flatbuffers.

    from loader import ExportedClassifier
    answers = ExportedClassifier("FOLDER")(token_ids, mask, threshold=0.9)

A row leaves at the first exit whose confidence reaches the threshold; only undecided
rows continue with the next program.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

if __package__:  # In sweet_jax.
    from sweet_jax.standalone import checks
else:  # In an exported folder.
    import checks  # type: ignore[no-redef]

FULL = float("inf")  # No confidence reaches FULL: every exit runs.
# Python's cache of this file.
_BUT_FOR = ("__pycache__",)
_MOST_BYTES = 1 << 30  # Programs and tokenizer together.


class Answers(NamedTuple):
    """One entry per row: logits before temperature, the other fields after it."""

    logits: np.ndarray
    probabilities: np.ndarray
    labels: list[str]
    exits: np.ndarray


class ExportedClassifier:
    """The programs of a folder; each compiles once per input shape."""

    def __init__(self, folder: str | Path) -> None:
        """Reads the folder; raises ValueError if it is newer, altered or incomplete."""
        folder = Path(folder)
        self.manifest = checks.read_manifest(folder)
        shapes = self.manifest["weights"]
        sums = checks.read_checksums(folder, _BUT_FOR)
        checks.verify_files(folder, sums, sums.keys() - {"weights.npz"}, _MOST_BYTES)
        most = _MOST_BYTES + checks.count_bytes(*shapes.values())
        checks.verify_files(folder, sums, ["weights.npz"], most)
        weights = checks.read_weights(folder / "weights.npz", shapes)
        on_device = {name: jax.device_put(x) for name, x in weights.items()}
        self._programs = []
        for program in self.manifest["programs"]:
            run = _read_program(folder / program["file"], program, shapes)
            read = {name: on_device[name] for name in program["weights"]}
            inputs = [
                (x["name"], x["shape"][:1] == ["batch"]) for x in program["inputs"]
            ]
            self._programs.append((inputs, read, jax.jit(run.call)))

    def __call__(
        self, ids: Any, mask: Any = None, types: Any = None, threshold: float = FULL
    ) -> Answers:
        """Classifies ids [B, L]; mask: 1 at tokens, then 0; types: 0 or 1 for pairs."""
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
            # For few shapes, row counts are padded to powers of two with copies of
            # rows.
            take = np.resize(where, 1 << (len(where) - 1).bit_length())
            state = {n: state[n][take] if by_row else state[n] for n, by_row in inputs}
            state |= call(weights, state)
            z = np.asarray(state["logits"])[: len(rows)]
            if not np.isfinite(z).all():
                row = rows[~np.isfinite(z).all(axis=1)][0]
                raise ValueError(
                    f"row {row}: exit {i} gives logits that are not finite"
                )
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
        """Returns valid [B, L] arrays padded to a bucket, else raises ValueError."""
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


def _read_program(path: Path, program: Any, shapes: Any) -> export.Exported:
    """Returns a program that matches the manifest and calls no external code."""
    try:
        exported = export.deserialize(bytearray(path.read_bytes()))
        calls = re.findall(
            r"custom_call(?! @shape_assertion\()", exported.mlir_module()
        )
        found = [
            [(str(list(x.shape)), str(x.dtype)) for x in avals]
            for avals in (exported.in_avals, exported.out_avals)
        ]
    except Exception as error:  # Deserialising may raise anything.
        reason = checks.describe(error)
        raise checks.FolderError(
            f"{path} is not a program that jax {jax.__version__} reads: {reason}"
        ) from error
    wanted = [
        [(shapes[name], "float32") for name in program["weights"]]
        + [(x["shape"], x["dtype"]) for x in program["inputs"]],
        [(x["shape"], x["dtype"]) for x in program["outputs"]],
    ]
    if found != [[(_format(shape), dtype) for shape, dtype in x] for x in wanted]:
        raise checks.FolderError(
            f"{path} is not the program that the manifest describes"
        )
    if calls:
        raise checks.FolderError(
            f"{path} calls external code, which exported segments never do"
        )
    return exported


def _format(shape: list[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"
