"""Backends: found by name, checked to be one, and refused before a model is read."""

from pathlib import Path

import pytest
from flax import linen as nn

import sweet_jax
from sweet_jax.engine.backend import Backend
from sweet_jax.engine.engine import make_backend, register_backend
from sweet_jax.engine.segments import Segments

pytestmark = pytest.mark.usefixtures("registries")
ARGUMENTS = (nn.Dense(1), {}, 2, 3, "default")


def test_ours_is_a_backend():
    lacking = [n for n in vars(Backend) if n[0] != "_" and not hasattr(Segments, n)]
    assert lacking == []


def test_an_unknown_backend_is_refused_before_the_folder_is_read(tmp_path: Path):
    register_backend("onnx", Segments)
    with pytest.raises(ValueError, match="backend='onyx': allowed are jax, onnx; did"):
        sweet_jax.load(tmp_path / "none", backend="onyx")


def test_what_makes_no_backend_is_refused():
    class Half:
        num_segments, num_classes = 2, 3

        def __init__(self, *arguments: object) -> None:
            assert arguments == ARGUMENTS

        def start(self, batch: object) -> None: ...

    register_backend("half", Half)
    with pytest.raises(
        ValueError, match="backend 'half' makes a Half without num_programs, run, take"
    ):
        make_backend("half", *ARGUMENTS)
    with pytest.raises(ValueError, match="backend 'three' is a int: register a class"):
        register_backend("three", 3)
