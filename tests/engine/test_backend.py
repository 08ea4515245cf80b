"""Backends: ours is one, and an unknown name is refused before a model is read."""

from pathlib import Path

import pytest

import sweet_jax
from sweet_jax.engine.backend import Backend
from sweet_jax.engine.engine import register_backend
from sweet_jax.engine.segments import Segments

pytestmark = pytest.mark.usefixtures("registries")


def test_ours_is_a_backend():
    lacking = [n for n in vars(Backend) if n[0] != "_" and not hasattr(Segments, n)]
    assert lacking == []


def test_an_unknown_backend_is_refused_before_the_folder_is_read(tmp_path: Path):
    register_backend("onnx", Segments)
    with pytest.raises(ValueError, match="backend='onyx': allowed are jax, onnx; did"):
        sweet_jax.load(tmp_path / "none", backend="onyx")
