"""A run's work directory: whose it is, what it depends on, what is finished in it."""

import errno
import platform
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from absl import logging

from sweet_jax.settings.fields import (
    Settings,
    compute_digest,
    evaluation_fields,
    to_dict,
    training_fields,
)
from sweet_jax.system import checksums
from sweet_jax.system.files import (
    FileError,
    check_schema,
    format_json,
    read_object,
    take_lock,
    write_bytes,
    write_json,
)

SCHEMA = 1
CONFIG = "config.json"
RESULTS = "results.json"
METRICS = "metrics.jsonl"
CURVES = "curves.npz"
MODEL = "model"
PARAMS = "model/params.safetensors"
CONFLICT = "gradient_conflict.json"
# What each of these files is made from stays in the work directory.
REMEDY = "repeat the command of the run, which makes it again"
_CONFIG_REMEDY = (
    "Repeat the command that made the run, with the same settings, or name another"
    " --workdir"
)
_NONE = object()  # a field that one side lacks
_PACKAGES = (
    "sweet_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
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


class Workdir:
    """An opened work directory; closed at the end of the process or by `close`.

    Its checksums.json lists the files of a finished run; what differs from it is made
    again by the run's own command.
    """

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
        self._lock: IO[str] | None = None
        training = training_fields(settings) | {
            f"inputs.{name}": digest for name, digest in inputs.items()
        }
        self.training_digest = compute_digest(training)
        self.evaluation_digest = compute_digest(
            evaluation_fields(settings) | {"training": self.training_digest}
        )
        stored = to_dict(settings)
        content = {"schema": SCHEMA, "settings": stored, "training": training}
        text = format_json(content)
        config = path / CONFIG
        _check_config(config, training, text)
        if not writes:
            return
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = take_lock(path / ".lock")
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            # A finished run is only read; `require_writing` is asked before the rest.
            self._refusal = error.strerror
            return
        if self._lock is None:
            raise WorkdirError(
                f"another process works in {path}: wait for it, or name another"
                " --workdir"
            )
        # Left alone where nothing changed: a finished run is not written to.
        versions = path / "versions.json"
        mark = checksums.mark_text(text)
        is_same = config.exists() and checksums.is_as_recorded(config, mark)
        is_recorded = CONFIG in self.find_intact([CONFIG])
        if not (is_same and is_recorded and versions.exists()):
            write_bytes(config, text.encode())
            checksums.record(path, CONFIG)
            write_json(versions, collect_versions())

    def close(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            self._lock.close()

    def require_writing(self) -> None:
        """Raises WorkdirError if the directory is there to be read only."""
        if self._writes and self._lock is None:
            raise WorkdirError(
                f"{self.path} holds no finished run of these settings and cannot be"
                f" written ({self._refusal}): allow writing, or name another --workdir"
            )

    def find_intact(self, names: Collection[str]) -> frozenset[str]:
        """Returns those of some files of the run that are as they were written.

        A line is logged about each that was written and is not.
        """
        recorded = checksums.find_recorded(self.path, names)
        intact = checksums.find_intact(self.path, recorded)
        for name in sorted(recorded - intact):
            logging.warning(
                "%s is missing, altered or damaged: it is made again", self.path / name
            )
        lacks_results = RESULTS in names and RESULTS not in recorded
        if lacks_results and (self.path / RESULTS).exists():
            logging.warning(
                "%s has no checksum of %s: every output is made again",
                self.path / checksums.FILE_NAME,
                RESULTS,
            )
        return intact

    def record(self, *names: str) -> None:
        """Writes down what files of the finished run are."""
        checksums.record(self.path, *names)

    def forget_outputs(self) -> None:
        """Takes every output of the run for unfinished."""
        checksums.forget(self.path, kept=(CONFIG,))

    def read_results(self) -> dict[str, Any] | None:
        """Returns results.json if it is whole and of these settings, else None."""
        if RESULTS not in checksums.find_intact(self.path, [RESULTS]):
            return None
        results = read_object(self.path / RESULTS, REMEDY)
        return results if results["digest"] == self.evaluation_digest else None


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the settings of a run as nested dicts.

    Raises:
        WorkdirError: the directory holds no run.
        FileError: config.json is damaged, or of a newer schema.
    """
    config = path / CONFIG
    if not path.is_dir() or not (config.exists() or (path / RESULTS).exists()):
        raise WorkdirError(f"{path} is no work directory: it has no {CONFIG}")
    checksums.check_recorded(path, CONFIG, REMEDY)
    content = read_object(config, REMEDY)
    check_schema(content, SCHEMA, config, REMEDY)
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


def _check_config(config: Path, training: Mapping[str, Any], text: str) -> None:
    """Checks that a work directory is new, or holds a run of these settings.

    Args:
        config: config.json in it.
        training: fields and digests of this run.
        text: of its config.json. Where the file is damaged, its checksum still tells
            whether this is the run that it described.

    Raises:
        WorkdirError: the directory holds something else.
    """
    folder = config.parent
    # Dot files are the lock and half-written ones of a process killed right here.
    if not folder.exists() or all(p.name[0] == "." for p in folder.iterdir()):
        return
    try:
        recorded = checksums.read_checksums(folder)
    except FileError:
        recorded = {}
    try:
        old = read_object(config, REMEDY)["training"]
        differences = list_differences(old, training)
        if not differences:
            return
        problem = f"holds a run of other settings: {'; '.join(differences)}"
        remedy = "Name another --workdir, or use the same settings"
        mark = recorded.get(CONFIG)
        if mark is not None and not checksums.is_as_recorded(config, mark):
            problem = f"has a {CONFIG} that was altered or damaged"
            remedy = _CONFIG_REMEDY
    except (FileError, KeyError, TypeError, AttributeError) as error:
        if CONFIG not in recorded and not config.exists():
            raise WorkdirError(
                f"{folder} exists, is not empty and holds no run: name another"
                " --workdir"
            ) from error
        problem = f"has no {CONFIG} that can be read"
        remedy = _CONFIG_REMEDY if CONFIG in recorded else "Name another --workdir"
    if recorded.get(CONFIG) == checksums.mark_text(text):
        return
    raise WorkdirError(f"{folder} {problem}. {remedy}")
