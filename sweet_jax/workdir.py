"""A run's work directory: whose it is, what it depends on, what is finished in it."""

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from sweet_jax import files
from sweet_jax.files import take_lock, write_json
from sweet_jax.settings import (
    Settings,
    compute_digest,
    evaluation_fields,
    to_dict,
    training_fields,
)

SCHEMA = 1
_REMEDY = "remove the work directory, or name another with --workdir"
_NONE = object()  # a field that one side lacks
_PACKAGES = (
    "sweet_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "transformers",
    "tokenizers",
    "datasets",
    "safetensors",
)


class WorkdirError(ValueError):
    """The work directory is another run's, or in use."""


def default_workdir(settings: Settings) -> Path:
    """Returns `runs/{task}-{encoder}-{method}-s{seed}-{8 hex of the settings}`."""
    digest = compute_digest(training_fields(settings))[:8]
    task = Path(settings.data.task).name
    encoder = Path(settings.encoder.name).name
    return (
        Path("runs") / f"{task}-{encoder}-{settings.method}-s{settings.seed}-{digest}"
    )


def read_json(path: Path) -> Any:
    """Reads a JSON file of a work directory.

    Raises:
        FileError: the file is missing or damaged.
    """
    return files.read_json(path, _REMEDY)


class Workdir:
    """An opened work directory; closed at the end of the process or by `close`."""

    def __init__(
        self, path: Path, settings: Settings, inputs: Mapping[str, str], writes: bool
    ) -> None:
        """Opens a new directory, or one of the same training settings and inputs.

        Args:
            path: the directory.
            settings: of the run, exits filled in.
            inputs: digests of the data and weights.
            writes: False on all but the first of several hosts.

        Raises:
            WorkdirError: it holds other files or another run (what differs is
                listed), or another process works in it.
        """
        self.path, self._writes = path, writes
        training = training_fields(settings) | {
            f"inputs.{name}": digest for name, digest in inputs.items()
        }
        self.training_digest = compute_digest(training)
        self.evaluation_digest = compute_digest(
            evaluation_fields(settings) | {"training": self.training_digest}
        )
        config = path / "config.json"
        if config.exists():
            _check_same(read_json(config)["training"], training, path)
        # Dot files are the lock and half-written ones of a process killed right here.
        elif path.exists() and any(p.name[0] != "." for p in path.iterdir()):
            raise WorkdirError(
                f"{path} exists, is not empty and holds no run: name another --workdir"
            )
        if not writes:
            return
        path.mkdir(parents=True, exist_ok=True)
        lock = take_lock(path / ".lock")
        if lock is None:
            raise WorkdirError(
                f"another process works in {path}: wait for it, or name another"
                " --workdir"
            )
        self._lock = lock
        content = json.loads(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "settings": to_dict(settings),
                    "training": training,
                }
            )
        )
        # Left alone where nothing changed: a finished run is not written to.
        versions = path / "versions.json"
        if not config.exists() or read_json(config) != content or not versions.exists():
            write_json(config, content)
            write_json(versions, collect_versions())

    def close(self) -> None:
        """Lets other processes in."""
        if self._writes:
            self._lock.close()

    def read_results(self) -> dict[str, Any] | None:
        """Returns results.json if it is that of these settings, else None."""
        path = self.path / "results.json"
        if not path.exists():
            return None
        results = read_json(path)
        current = results["digest"] == self.evaluation_digest
        return results if current else None


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the settings of a run as nested dicts.

    Raises:
        WorkdirError: the directory holds no run, or one of a newer schema.
    """
    config = path / "config.json"
    if not config.is_file():
        raise WorkdirError(f"{path} is no work directory: it has no config.json")
    content = read_json(config)
    if content["schema"] > SCHEMA:
        raise WorkdirError(
            f"{config} has schema {content['schema']}, this version reads up to"
            f" {SCHEMA}: update sweet_jax"
        )
    return content["settings"]


def collect_versions() -> dict[str, str]:
    """Returns the versions of Python, the platform and the packages that matter."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # Run from a checkout, not installed.
            versions[package] = "not installed"
    return versions


def list_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns `name was 1, now 2` for each field that differs.

    Args:
        old: fields that a file holds.
        new: fields that are asked for; one that either lacks counts as `(none)` there.
    """
    lacking = dict.fromkeys(old.keys() | new.keys(), _NONE)
    before, now = lacking | dict(old), lacking | dict(new)

    def show(value: Any) -> str:
        return "(none)" if value is _NONE else repr(value)

    return [
        f"{name} was {show(before[name])}, now {show(now[name])}"
        for name in sorted(lacking)
        if before[name] != now[name]
    ]


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Raises WorkdirError with what differs between a stored run and this one."""
    if differences := list_differences(old, new):
        raise WorkdirError(
            f"{path} holds a run of other settings: {'; '.join(differences)}. Name"
            " another --workdir, or use the same settings"
        )
