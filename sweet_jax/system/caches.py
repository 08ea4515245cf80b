"""Cache directories: ours, and those of the libraries that a command uses.

docs/caches.md lists them. A command sets the libraries' environment variables before it
imports them; variables that the user has set keep their values.
"""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

OWN = "SWEET_JAX_CACHE"
_COMMON = "XDG_CACHE_HOME"
# Variable -> folder in the user's cache directory. Hugging Face's libraries,
# matplotlib's fonts and fontconfig follow XDG_CACHE_HOME; these do not.
_PLACES = {
    "MPLCONFIGDIR": "matplotlib",
    "TFDS_DATA_DIR": "tensorflow_datasets",
    "CUDA_CACHE_PATH": "cuda",
}
# Written to test whether a folder is writable: a full disk still accepts empty files.
_PROBE = bytes(1 << 16)


def find_cache() -> Path:
    """Returns the directory of our caches: SWEET_JAX_CACHE, or the user's cache home.

    Without a home directory it is a folder in the temporary directory.
    """
    if os.environ.get(OWN):
        return Path(os.environ[OWN]).absolute()
    if os.environ.get(_COMMON):
        return Path(os.environ[_COMMON]).absolute() / "sweet_jax"
    with contextlib.suppress(RuntimeError):
        return Path.home() / ".cache" / "sweet_jax"
    return _find_temporary()


def set_places() -> str | None:
    """Sets the cache variables of this process; call it before importing libraries.

    Returns:
        A warning about a cache that cannot be used, or None.
    """
    wanted, warning = find_cache(), None
    if problem := try_folder(wanted):
        place = _find_temporary()
        warning = (
            f"caches go to {place}, since {wanted} cannot be written ({problem}): set"
            f" {OWN} to a writable folder"
        )
        os.environ[OWN] = str(place)
        # Libraries would fail on an unusable XDG_CACHE_HOME, so it is not intended.
        if os.environ.get(_COMMON) and try_folder(Path(os.environ[_COMMON])):
            del os.environ[_COMMON]
    if os.environ.get(OWN):
        root = find_cache()
        _keep_token()
        _set_default(_COMMON, root)
    elif os.environ.get(_COMMON):
        root = Path(os.environ[_COMMON]).absolute()
    else:
        return warning
    for name, folder in _PLACES.items():
        _set_default(name, root / folder)
    return warning


def _set_default(name: str, path: Path) -> None:
    if not os.environ.get(name):
        os.environ[name] = str(path)


def _keep_token() -> None:
    """Keeps the user's Hugging Face token in use; it is stored beside the cache."""
    if any(os.environ.get(name) for name in ("HF_HOME", "HF_TOKEN_PATH", _COMMON)):
        return
    with contextlib.suppress(OSError, RuntimeError):
        token = Path.home() / ".cache" / "huggingface" / "token"
        if token.is_file():
            os.environ["HF_TOKEN_PATH"] = str(token)


def try_folder(folder: Path) -> str | None:
    """Returns why a folder (created if missing) is not writable; None if it is.

    Only writing a file tests permissions, read-only file systems and quotas alike.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _find_temporary() -> Path:
    """Returns a folder in the temporary directory that only this user can write.

    Compiled programs are loaded from the cache and run, so a folder of our name that
    another user has made is not used.
    """
    user = os.geteuid()
    folder = Path(tempfile.gettempdir()) / f"sweet_jax-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        is_private = status.st_uid == user and not status.st_mode & 0o077
        if stat.S_ISDIR(status.st_mode) and is_private and try_folder(folder) is None:
            return folder
    return Path(tempfile.mkdtemp(prefix=f"sweet_jax-{user}-"))
