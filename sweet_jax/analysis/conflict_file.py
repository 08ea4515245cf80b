"""gradient_conflict.json (schema 1): the measurements of a run, step by step.

    schema, method_label, seed, exit_layers, num_steps, num_batches, batch_rows
    groups        [{name, level, segment, exits, pairs, num_parameters}]
    measurements  [{step, conflicts}], a conflict per group: cosine, cosine_error,
                  cosine_of_mean, norm_ratio (each per pair), norm, norm_of_mean (exits)
    missing_steps requested after training had passed them
    sha256        of all of the above

`gradient_conflict.Conflict` describes the numbers; null is its None.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sweet_jax.analysis.gradient_conflict import Conflict
from sweet_jax.analysis.parameter_groups import Group
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.checksums import read_sealed, write_sealed
from sweet_jax.system.files import FileError, check_schema

FILE_NAME = "gradient_conflict.json"
SCHEMA = 1
# Earlier steps cannot be measured again, and no other file has them.
_REMEDY = "move it away and repeat the run's command, which measures what it still can"

# Fields of `Conflict` that are the group's, not the measurement's.
_GROUP_FIELDS = ("exits", "pairs")


class ConflictFile:
    """The file of one run; it is written atomically, so an interrupted run can resume.

    Attributes:
        path: path of the file; the first measurement makes it.
    """

    def __init__(self, workdir: Path, header: dict[str, Any], writes: bool) -> None:
        """Reads the measurements of earlier processes.

        Args:
            workdir: work directory of the run.
            header: result of `make_header`.
            writes: whether this process writes; only process 0 does.

        Raises:
            FileError: the file is damaged.
            SettingsError: it was measured with other settings.
        """
        self.path, self._writes = workdir / FILE_NAME, writes
        self._content: dict[str, Any] = {
            **header,
            "measurements": [],
            "missing_steps": [],
        }
        if not self.path.exists():
            return
        found = read_sealed(self.path, _REMEDY)
        check_schema(found, SCHEMA, self.path, _REMEDY)
        if not found.keys() >= self._content.keys():
            raise FileError(f"{self.path} is damaged: {_REMEDY}")
        if differing := sorted(k for k, v in header.items() if found[k] != v):
            raise SettingsError(
                f"{self.path} was measured with other {', '.join(differing)}: keep"
                " analysis.num_batches as it was, or move the file away (steps that"
                " training has passed cannot be measured again)"
            )
        self._content = found

    @property
    def settled_steps(self) -> frozenset[int]:
        """The steps that are measured or recorded as missing."""
        measured = (row["step"] for row in self._content["measurements"])
        return frozenset((*measured, *self._content["missing_steps"]))

    def add(self, step: int, conflicts: Sequence[Conflict]) -> None:
        """Writes the measurement after a step, one conflict per group of the header."""
        row = {"step": step, "conflicts": [_to_json(c) for c in conflicts]}
        others = [m for m in self._content["measurements"] if m["step"] != step]
        self._content["measurements"] = sorted([*others, row], key=lambda m: m["step"])
        self._content["missing_steps"] = [
            other for other in self._content["missing_steps"] if other != step
        ]
        self._write()

    def add_missing(self, steps: Iterable[int]) -> None:
        """Records requested steps that can no longer be measured."""
        missing = sorted({*self._content["missing_steps"], *steps})
        if missing != self._content["missing_steps"]:
            self._content["missing_steps"] = missing
            self._write()

    def _write(self) -> None:
        if self._writes:
            write_sealed(self.path, self._content)


def make_header(
    method_label: str,
    seed: int,
    exit_layers: Sequence[int],
    num_steps: int,
    batch_rows: Sequence[Sequence[int]],
    groups: Sequence[Group],
    num_parameters: Sequence[int],
) -> dict[str, Any]:
    """Returns the fields of the file that no measurement changes.

    Args:
        method_label: label of the method.
        seed: seed of the run.
        exit_layers: the layer each exit reads.
        num_steps: number of training steps.
        batch_rows: per batch, the rows' positions in their published split.
        groups: groups of parameters.
        num_parameters: number of parameters of each group.
    """
    exits = range(len(exit_layers))
    return {
        "schema": SCHEMA,
        "method_label": method_label,
        "seed": seed,
        "exit_layers": list(exit_layers),
        "num_steps": num_steps,
        "num_batches": len(batch_rows),
        "batch_rows": [list(rows) for rows in batch_rows],
        "groups": [
            {
                "name": group.name,
                "level": group.level,
                "segment": group.segment,
                "exits": list(exits[group.segment :]),
                "pairs": [
                    [i, j] for i in exits[group.segment :] for j in exits[i + 1 :]
                ],
                "num_parameters": count,
            }
            for group, count in zip(groups, num_parameters, strict=True)
        ],
    }


def _to_json(conflict: Conflict) -> dict[str, list[float | None]]:
    """Returns the numbers with 6 digits, the precision of the inner products."""
    return {
        field.name: [
            None if value is None else float(f"{value:.6g}")
            for value in getattr(conflict, field.name)
        ]
        for field in dataclasses.fields(conflict)
        if field.name not in _GROUP_FIELDS
    }
