"""Caches go where the person says, out of HOME when told to, and never end the work."""

import os
from pathlib import Path

import pytest

from sweet_jax.system import caches

_VARIABLES = (
    "SWEET_JAX_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TFDS_DATA_DIR",
    "CUDA_CACHE_PATH", "HF_HOME", "HF_TOKEN_PATH",
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An empty home and temporary directory; no variable is set."""
    for name in _VARIABLES:
        # Set first: what the code sets is taken back, too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(caches.tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "home"


def test_by_default_libraries_keep_their_own_places(home):
    assert caches.set_places() is None
    assert caches.find_cache() == home / ".cache" / "sweet_jax"
    assert not any(name in os.environ for name in _VARIABLES)


@pytest.mark.parametrize("name", ["SWEET_JAX_CACHE", "XDG_CACHE_HOME"])
def test_a_named_place_holds_the_caches_of_all(name, home, tmp_path, monkeypatch):
    monkeypatch.setenv(name, str(tmp_path / "place"))
    assert caches.set_places() is None
    for variable in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "TFDS_DATA_DIR"):
        assert Path(os.environ[variable]).is_relative_to(tmp_path / "place")
    assert caches.find_cache().is_relative_to(tmp_path / "place")
    assert list(home.iterdir()) == []


def test_what_is_set_for_a_library_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(tmp_path / "place"))
    monkeypatch.setenv("MPLCONFIGDIR", "/elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/and/elsewhere")
    caches.set_places()
    assert os.environ["MPLCONFIGDIR"] == "/elsewhere"
    assert os.environ["XDG_CACHE_HOME"] == "/and/elsewhere"


def test_an_empty_variable_is_none_and_a_relative_one_follows_no_directory(
    home, monkeypatch
):
    monkeypatch.setenv("SWEET_JAX_CACHE", "")
    assert caches.find_cache() == home / ".cache" / "sweet_jax"
    monkeypatch.setenv("SWEET_JAX_CACHE", "here")
    assert caches.find_cache() == Path.cwd() / "here"


def test_the_token_of_the_hub_is_still_found(home, tmp_path, monkeypatch):
    token = home / ".cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("secret")
    monkeypatch.setenv("SWEET_JAX_CACHE", str(tmp_path / "place"))
    caches.set_places()
    assert os.environ["HF_TOKEN_PATH"] == str(token)


@pytest.mark.parametrize("case", ["a file", "no home", "a full disk", "xdg is a file"])
def test_work_goes_on_in_a_temporary_folder_with_one_warning(
    case, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    if case == "a file":
        monkeypatch.setenv("SWEET_JAX_CACHE", str(tmp_path / "file"))
    elif case == "xdg is a file":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    elif case == "no home":
        monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    else:
        full = tmp_path / "full"
        real = caches.tempfile.TemporaryFile

        def fill(**options: object) -> object:
            # Takes a file and nothing in it.
            return (
                open("/dev/full", "wb") if options["dir"] == full else real(**options)
            )

        monkeypatch.setattr(caches.tempfile, "TemporaryFile", fill)
        monkeypatch.setenv("SWEET_JAX_CACHE", str(full))
    warning = caches.set_places()
    assert warning is not None
    assert "set SWEET_JAX_CACHE to a writable folder" in warning
    place = tmp_path / "tmp" / f"sweet_jax-{os.geteuid()}"
    assert caches.find_cache() == place
    assert place.stat().st_mode & 0o777 == 0o700
    assert Path(os.environ["XDG_CACHE_HOME"]) == place
    # The process of a cell inherits the place, and has nothing to warn of.
    assert caches.set_places() is None


@pytest.mark.parametrize("case", ["open to others", "a link"])
def test_a_folder_that_others_made_at_our_name_is_not_used(case, tmp_path, monkeypatch):
    """Programs are loaded from a cache and run."""
    place = tmp_path / "tmp" / f"sweet_jax-{os.geteuid()}"
    if case == "a link":
        (tmp_path / "trap").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "trap")
    else:
        place.mkdir()
        place.chmod(0o777)
    monkeypatch.setenv("SWEET_JAX_CACHE", "/dev/null/x")
    caches.set_places()
    used = caches.find_cache()
    assert used.parent == tmp_path / "tmp"
    assert used != place
    assert used.stat().st_mode & 0o777 == 0o700


def test_a_user_without_home_and_name_has_a_place(monkeypatch):
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(caches.Path, "home", fail)
    assert caches.find_cache().name == f"sweet_jax-{os.geteuid()}"
