"""BERT with its recording, for the tests of what several families share."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest
from recorded import Recorded, load_recorded

from sweet_jax.huggingface.safetensors import LoadedEncoder
from sweet_jax.models.bert import BertConfig


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return load_recorded("bert")


@pytest.fixture(scope="module")
def golden(recorded: Recorded) -> dict[str, np.ndarray]:
    return recorded.arrays


@pytest.fixture(scope="module")
def config(recorded: Recorded) -> BertConfig:
    return recorded.config


@pytest.fixture(scope="module")
def loaded(recorded: Recorded) -> LoadedEncoder:
    return recorded.loaded


@pytest.fixture
def highest_precision() -> Iterator[None]:
    """Products in full float32, to compare with recordings."""
    with jax.default_matmul_precision("highest"):
        yield
