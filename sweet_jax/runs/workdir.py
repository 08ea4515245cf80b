"""A run's work directory: its settings and inputs, its lock, its finished files."""

import errno
import logging
import platform
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

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
    list_differences,
    read_object,
    take_lock,
    write_bytes,
    write_json,
)

logger = logging.getLogger(__name__)

SCHEMA = 1
CONFIG = "config.json"
RESULTS = "results.json"
METRICS = "metrics.jsonl"
CURVES = "curves.npz"
BASELINES = "baselines.json"
MODEL = "model"
PARAMS = "model/params.safetensors"
# The inputs of these files are in the work directory, so they can be made again.
REMEDY = "repeat the command of the run, which makes it again"
_CONFIG_REMEDY = (
    "Repeat the command that made the run, with the same settings, or name another"
    " --workdir"
)
_PACKAGES = (
    "sweet_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "numpy",
    "scipy",
    "scikit-learn",
    "transformers",
    "tokenizers",
    "datasets",
    "safetensors",
)


class WorkdirError(ValueError):
    """The work directory belongs to another run, or is in use."""


def default_workdir(settings: Settings) -> Path:
    """Returns `runs/{task}-{encoder}-{method}-s{seed}-{8 hex of the settings}`."""
    digest = compute_digest(training_fields(settings))[:8]
    task = Path(settings.data.task).name
    encoder = Path(settings.encoder.name).name
    return (
        Path("runs") / f"{task}-{encoder}-{settings.method}-s{settings.seed}-{digest}"
    )


class LockedFolder:
    """An open work directory; closed by `close` or at the end of the process.

    Its checksums.json lists the files of a finished run; the run's command makes files
    with another checksum again.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        training: Mapping[str, Any],
        writes: bool,
    ) -> None:
        """Makes a directory, or opens one with the same fields.

        Args:
            path: the directory.
            settings: all settings, nested, for config.json.
            training: flat fields, and digests of inputs, that must be the same when the
                directory is used again.
            writes: whether this process writes; only process 0 does.

        Raises:
            WorkdirError: it contains other files or another run (the message lists the
                differences), or another process uses it.
        """
        self.path, self._writes = path, writes
        self._lock: IO[str] | None = None
        self.training_digest = compute_digest(training)
        content = {"schema": SCHEMA, "settings": settings, "training": training}
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
            # A finished run is only read; other runs call `require_writing` first.
            self._refusal = error.strerror
            return
        if self._lock is None:
            raise WorkdirError(
                f"another process uses {path}: wait for it, or name another --workdir"
            )
        # Written only if it changed, since a finished run may be read-only.
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
        """Raises WorkdirError if the directory is read-only."""
        if self._writes and self._lock is None:
            raise WorkdirError(
                f"{self.path} has no finished run with these settings and cannot be"
                f" written ({self._refusal}): allow writing, or name another --workdir"
            )

    def find_intact(self, names: Collection[str]) -> frozenset[str]:
        """Returns the files among `names` that are unchanged since they were written.

        Logs a line for each file that was written and has changed.
        """
        recorded = checksums.find_recorded(self.path, names)
        intact = checksums.find_intact(self.path, recorded)
        for name in sorted(recorded - intact):
            logger.warning(
                "%s is missing, altered or damaged: it is made again", self.path / name
            )
        lacks_results = RESULTS in names and RESULTS not in recorded
        if lacks_results and (self.path / RESULTS).exists():
            logger.warning(
                "%s has no checksum of %s: every output is made again",
                self.path / checksums.FILE_NAME,
                RESULTS,
            )
        return intact

    def record(self, *names: str) -> None:
        """Records the checksums of files of the finished run."""
        checksums.record(self.path, *names)


class Workdir(LockedFolder):
    """The work directory of a run."""

    def __init__(
        self, path: Path, settings: Settings, inputs: Mapping[str, str], writes: bool
    ) -> None:
        """Makes a directory, or opens one with the same training settings and inputs.

        Args:
            path: the directory.
            settings: settings of the run, with exit layers filled in.
            inputs: digests of the data and weights.
            writes: see `LockedFolder`.

        Raises:
            WorkdirError: see `LockedFolder`.
        """
        training = training_fields(settings) | {
            f"inputs.{name}": digest for name, digest in inputs.items()
        }
        super().__init__(path, to_dict(settings), training, writes)
        self.evaluation_digest = compute_digest(
            evaluation_fields(settings) | {"training": self.training_digest}
        )

    def forget_outputs(self) -> None:
        """Marks every output that depends on the training as unfinished."""
        checksums.forget(self.path, kept=(CONFIG, BASELINES))

    def read_results(self) -> dict[str, Any] | None:
        """Returns results.json if it is intact and has these settings, else None."""
        if RESULTS not in checksums.find_intact(self.path, [RESULTS]):
            return None
        results = read_object(self.path / RESULTS, REMEDY)
        return results if results["digest"] == self.evaluation_digest else None


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the settings of a run as nested dicts.

    Raises:
        WorkdirError: the directory does not contain a run.
        FileError: config.json is damaged, or of a newer schema.
    """
    config = path / CONFIG
    if not path.is_dir() or not (config.exists() or (path / RESULTS).exists()):
        raise WorkdirError(f"{path} is not a work directory: it has no {CONFIG}")
    checksums.check_recorded(path, CONFIG, REMEDY)
    content = read_object(config, REMEDY)
    check_schema(content, SCHEMA, config, REMEDY)
    return content["settings"]


def collect_versions() -> dict[str, str]:
    """Returns the versions of Python, the platform and the main packages."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # Used from a checkout.
            versions[package] = "not installed"
    return versions


def _check_config(config: Path, training: Mapping[str, Any], text: str) -> None:
    """Checks that a work directory is new, or contains a run with these settings.

    Args:
        config: path of its config.json.
        training: fields and digests of this run.
        text: content that config.json should have. If the file is damaged, its recorded
            checksum still shows whether it described this run.

    Raises:
        WorkdirError: the directory contains something else.
    """
    folder = config.parent
    # Dot files are the lock, and temporary files of a process that was killed here.
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
        problem = f"holds a run with other settings: {'; '.join(differences)}"
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
