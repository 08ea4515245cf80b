"""gradient_conflict.json (schema 1): what was measured of a run, step by step.

    schema, method_label, seed, exit_layers, num_steps, num_batches, batch_rows
    groups        [{name, level, segment, exits, pairs, num_parameters}]
    measurements  [{step, conflicts}], a conflict per group: cosine, cosine_error,
                  cosine_of_mean, norm_ratio (each per pair), norm, norm_of_mean (exits)
    missing_steps wanted, but passed before anyone asked for them
    sha256        of all of the above

What the numbers are says `gradient_conflict.Conflict`; null stands for its None.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sweet_jax.analysis.gradient_conflict import Conflict
from sweet_jax.analysis.parameter_groups import Group
from sweet_jax.runs.workdir import CONFLICT, WorkdirError
from sweet_jax.system.checksums import read_sealed, write_sealed
from sweet_jax.system.files import FileError, check_schema

SCHEMA = 1
# Its steps are past, and no other file has them.
_REMEDY = "move it away and repeat the run's command, which measures what it still can"

# Fields of `Conflict` that are the group's, not the measurement's.
_GROUP_FIELDS = ("exits", "pairs")


class ConflictFile:
    """The file of one run; whole at any moment, so an interrupted run goes on with it.

    Attributes:
        path: of the file; it is made by the first measurement.
    """

    def __init__(self, workdir: Path, header: dict[str, Any], writes: bool) -> None:
        """Takes up what an earlier process measured.

        Args:
            workdir: of the run.
            header: of `make_header`.
            writes: False on all but the first of several hosts.

        Raises:
            FileError: the file is damaged.
            WorkdirError: it was measured otherwise.
        """
        self.path, self._writes = workdir / CONFLICT, writes
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
            raise WorkdirError(
                f"{self.path} was measured with other {', '.join(differing)}: keep"
                " analysis.num_batches as it was, or move the file away (steps that"
                " training has passed cannot be measured again)"
            )
        self._content = found

    @property
    def settled_steps(self) -> frozenset[int]:
        """The steps that are measured, or known to be missing."""
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
        """Writes which wanted steps will never be measured."""
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
        method_label: as shown to people.
        seed: of the run.
        exit_layers: the layer each exit reads.
        num_steps: of training.
        batch_rows: per batch, the rows' positions in their published split.
        groups: of parameters.
        num_parameters: of each group.
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
    """Returns the numbers in 6 digits: the inner products hold no more."""
    return {
        field.name: [
            None if value is None else float(f"{value:.6g}")
            for value in getattr(conflict, field.name)
        ]
        for field in dataclasses.fields(conflict)
        if field.name not in _GROUP_FIELDS
    }
