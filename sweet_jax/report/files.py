"""Reads the result files of a finished work directory, and writes files whole.

No jax here nor anywhere in this package: a report is made on a machine that only has
the files.
"""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.report.results_schema import check_results
from sweet_jax.system.checksums import check_recorded, find_recorded, read_sealed
from sweet_jax.system.files import (
    FileError,
    check_schema,
    parse_json,
    read_object,
    write_bytes,
)

SCHEMA = 1
RELIABILITY_STAGES = ("before", "after")

_CONFLICT_FIELDS = frozenset(
    (
        "schema", "method_label", "seed", "exit_layers", "num_steps", "num_batches",
        "groups", "measurements", "missing_steps",
    )
)  # fmt: skip
# What the measurements say of their run, and results.json, too.
_OF_BOTH = ("method_label", "seed", "exit_layers")
_REMEDY = "repeat the command of the run, which makes it again"
_CONFLICT_REMEDY = "move it away"


class ReportError(FileError):
    """A run cannot be reported on: one line with where, why and what to do."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The result files of one finished work directory.

    Attributes:
        path: the work directory.
        results: results.json.
        curves: arrays of curves.npz by their names, such as `exact/margin/score`.
        metrics: rows of metrics.jsonl that carry losses; empty without that file.
        settings: of config.json, with dotted names such as `optim.clip_norm`; empty
            without that file.
        conflict: gradient_conflict.json; None where it was not measured.
    """

    path: Path
    results: dict[str, Any]
    curves: dict[str, np.ndarray]
    metrics: list[dict[str, Any]]
    settings: dict[str, Any]
    conflict: dict[str, Any] | None = None

    @property
    def criteria(self) -> list[str]:
        """The criteria that were swept, in the order of the settings."""
        return list(self.results["curves"])

    @property
    def num_exits(self) -> int:
        """The number of exits E."""
        return len(self.results["exits"])

    def exact_curve(self, criterion: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns cost fractions [K], rising, and scores [K] of the exact curve."""
        prefix = f"exact/{criterion}"
        cost, score = (
            self.curves[f"{prefix}/{name}"] for name in ("cost_fraction", "score")
        )
        # A stable sort keeps ties in threshold order.
        order = np.argsort(cost, kind="stable")
        return cost[order], score[order]


def read_run(workdir: Path) -> Run:
    """Reads all that a report needs from a finished work directory.

    Raises:
        ReportError: the directory is none, or holds no finished run, or a file is
            damaged, of a newer schema or incomplete.
    """
    results = read_results(workdir)
    return Run(
        path=workdir,
        results=results,
        curves=_read_curves(workdir / "curves.npz", results),
        metrics=_read_metrics(workdir / "metrics.jsonl"),
        settings=_read_settings(workdir / "config.json"),
        conflict=read_conflict(workdir, results),
    )


def read_results(workdir: Path) -> dict[str, Any]:
    """Reads and checks results.json; unknown fields are kept and harmless.

    Raises:
        ReportError: see `read_run`.
    """
    if not workdir.is_dir():
        what = "is not a directory" if workdir.exists() else "does not exist"
        raise ReportError(f"{workdir} {what}: give the work directory of a run")
    path = workdir / "results.json"
    if not path.exists():
        if (workdir / "config.json").exists():
            raise ReportError(
                f"{workdir} holds an unfinished run (no results.json yet): repeat the"
                " command that started it, it goes on where it stopped"
            )
        if (workdir / "plan.json").exists():
            raise ReportError(
                f"{workdir} holds a study: python -m sweet_jax study {workdir} writes"
                " its report"
            )
        raise ReportError(
            f"{workdir} is not a work directory (no results.json in it): give the"
            " directory that a run has written"
        )
    check_recorded(workdir, path.name, _REMEDY)
    results = read_object(path, _REMEDY)
    check_schema(results, SCHEMA, path, _REMEDY)
    check_results(path, results, _REMEDY)
    return results


def read_conflict(workdir: Path, results: dict[str, Any]) -> dict[str, Any] | None:
    """Reads gradient_conflict.json; None where gradient conflict was not measured.

    Raises:
        FileError: the file is damaged, of a newer schema or incomplete.
        ReportError: it is of another run than `results`.
    """
    path = workdir / "gradient_conflict.json"
    if not path.exists():
        return None
    conflict = read_sealed(path, _CONFLICT_REMEDY)
    check_schema(conflict, SCHEMA, path, _CONFLICT_REMEDY)
    if missing := sorted(_CONFLICT_FIELDS - conflict.keys()):
        lacking = ", ".join(missing)
        raise ReportError(f"{path} lacks {lacking}: {_CONFLICT_REMEDY}")
    if any(conflict[name] != results[name] for name in _OF_BOTH):
        raise ReportError(f"{path} is of another run: {_CONFLICT_REMEDY}")
    return conflict


def write_file(path: Path, content: bytes) -> Path:
    """Writes a file whole, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return path


def _read_curves(path: Path, results: dict[str, Any]) -> dict[str, np.ndarray]:
    check_recorded(path.parent, path.name, _REMEDY)
    try:
        # np.load alone leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as arrays:
            curves = {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ReportError(f"{path} is damaged ({reason}): {_REMEDY}") from error
    needed = {
        f"{kind}/{criterion}/{name}"
        for criterion in results["curves"]
        for kind, name in (
            ("exact", "score"),
            ("exact", "cost_fraction"),
            ("share", "threshold"),
            ("share", "share"),
        )
    } | {
        f"reliability/{stage}/exit_{i}/{name}"
        for stage in RELIABILITY_STAGES
        for i in range(len(results["exits"]))
        for name in ("confidence", "accuracy", "count")
    }
    if missing := sorted(needed - curves.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ReportError(f"{path} lacks {missing[0]}{more}: {_REMEDY}")
    return curves


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not _is_there(path):
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        row = parse_json(line, path.with_name(f"{path.name}, line {number},"), _REMEDY)
        # Rows of other kinds (evaluations, remarks) may stand between the steps.
        if isinstance(row, dict) and {"step", "loss"} <= row.keys():
            rows.append(row)
    return rows


def _read_settings(path: Path) -> dict[str, Any]:
    if not _is_there(path):
        return {}
    config = read_object(path, _REMEDY)
    if not isinstance(config.get("settings"), dict):
        raise ReportError(f"{path} is damaged (no settings): {_REMEDY}")
    return _flatten(config["settings"])


def _is_there(path: Path) -> bool:
    """Whether a file that some runs lack is there, and as it was written."""
    if not find_recorded(path.parent, [path.name]) and not path.exists():
        return False
    check_recorded(path.parent, path.name, _REMEDY)
    return True


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            fields |= _flatten(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields
