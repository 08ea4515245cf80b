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
    register_backend("other", Segments)
    match = "backend='onyx': allowed are jax, onnx, other; did you mean onnx"
    with pytest.raises(ValueError, match=match):
        sweet_jax.load(tmp_path / "none", backend="onyx")


def test_so_is_a_precision_that_the_backend_does_not_have(tmp_path: Path):
    for backend, precision, message in (
        ("onnx", "int4", "precision=int4: backend onnx has float32, int8"),
        ("jax", "int8", "precision=int8: backend jax has no choice of it"),
    ):
        with pytest.raises(ValueError, match=message):
            sweet_jax.load(tmp_path / "none", backend=backend, precision=precision)


def test_so_are_threads_that_it_cannot_use(tmp_path: Path):
    for backend, threads, message in (
        ("jax", 2, "threads=2: backend jax has no choice of it: leave it out"),
        ("onnx", 0, "threads=0: allowed are 1 to 1024"),
        ("onnx", 5000, "threads=5000: allowed are 1 to 1024"),
    ):
        with pytest.raises(ValueError, match=message):
            sweet_jax.load(tmp_path / "none", backend=backend, threads=threads)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_line_to_type(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, package: str
):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == package else object()
    )
    match = rf'needs the package {package}, .*: pip install "sweet_jax\[onnx\]"'
    with pytest.raises(ValueError, match=match):
        sweet_jax.load(tiny_model, backend="onnx")
